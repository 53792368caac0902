//! The picture for the README: what each kind of work costs, as a multiple of what it costs nginx.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Result;
use crate::callgrind::FIGURE;
use crate::peers::Kind;
use crate::report::{Report, Series, figure};
use crate::work::PLAIN;

/// What is drawn: a caption and the row's name.
const ROWS: [(&str, &str); 10] = [
    ("HTTP/1.1 keep-alive", PLAIN),
    ("HTTP/1.1, a connection each", "HTTP/1.1, a connection each"),
    ("HTTP/1.1 over TLS 1.3", "HTTP/1.1 over TLS 1.3"),
    ("HTTP/2 over TLS 1.3", "HTTP/2 over TLS 1.3"),
    ("full TLS 1.3 handshake", "TLS 1.3 handshake"),
    ("response of 64 KiB", "64 KiB"),
    ("response of 1 MiB", "1 MiB"),
    ("POST of 1 KiB", "POST 1 KiB"),
    ("POST of 1 MiB", "POST 1 MiB"),
    ("user instructions, HTTP/1.1", FIGURE),
];

const WIDTH: i32 = 860;
const ROW: i32 = 40;
const TOP: i32 = 96;
const BOTTOM: i32 = 64;
/// Where bars begin, and where a ratio of 1 is.
const LEFT: i32 = 250;
const ONE: i32 = 620;

const INK: RGBColor = RGBColor(0x1f, 0x29, 0x37);
const QUIET: RGBColor = RGBColor(0x6b, 0x72, 0x80);
const RULE: RGBColor = RGBColor(0xe5, 0xe7, 0xeb);
const OURS: RGBColor = RGBColor(0x0f, 0x76, 0x6e);
const WORSE: RGBColor = RGBColor(0xb4, 0x53, 0x09);
const HAPROXY: RGBColor = RGBColor(0x4f, 0x46, 0xe5);
const NGINX: RGBColor = RGBColor(0x37, 0x41, 0x51);

/// A place on the line of ratios. What is beyond the paper stays at its edge.
fn x(ratio: f64) -> i32 {
    (LEFT + (f64::from(ONE - LEFT) * ratio) as i32).min(WIDTH - 16)
}

/// The picture, as SVG; none when a row was not measured.
pub fn draw(report: &Report) -> Result<Option<String>> {
    let rows: Option<Vec<(&str, &Series)>> =
        ROWS.iter().map(|(caption, name)| Some((*caption, report.find(name)?))).collect();
    let Some(rows) = rows else { return Ok(None) };
    let height = TOP + ROW * rows.len() as i32 + BOTTOM;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH as u32, height as u32));
        paint(&area.into_drawing_area(), height, &rows, report.title())
            .map_err(|error| format!("the picture cannot be drawn: {error}"))?;
    }
    Ok(Some(text))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn font(size: i32, colour: RGBColor, at: HPos) -> TextStyle<'static> {
    let mut style = TextStyle::from(("Helvetica, Arial, sans-serif", size).into_font());
    style.color = colour.to_backend_color();
    style.pos(Pos::new(at, VPos::Center))
}

fn write(area: &Area<'_>, text: &str, style: &TextStyle<'_>, x: i32, y: i32) -> Drawn {
    area.draw_text(text, style, (x, y)).map_err(|error| error.to_string().into())
}

fn paint(area: &Area<'_>, height: i32, rows: &[(&str, &Series)], title: &str) -> Drawn {
    let end = height - BOTTOM + 8;
    area.draw(&Rectangle::new([(0, 0), (WIDTH, height)], WHITE.filled()))?;
    let bold = font(19, INK, HPos::Left).into_font_style(FontStyle::Bold);
    write(area, "CPU per request, as a multiple of nginx's", &bold, 24, 30)?;
    write(
        area,
        "shorter is better; the thin line is the range of rounds",
        &font(13, QUIET, HPos::Left),
        24,
        54,
    )?;
    for tenth in [0, 5, 15] {
        let at = x(f64::from(tenth) / 10.0);
        area.draw(&PathElement::new([(at, TOP - 8), (at, end)], RULE.stroke_width(1)))?;
        write(
            area,
            &format!("{:.1}", f64::from(tenth) / 10.0),
            &font(12, QUIET, HPos::Center),
            at,
            TOP - 18,
        )?;
    }
    for (place, (caption, series)) in rows.iter().enumerate() {
        row(area, TOP + ROW * place as i32 + ROW / 2, caption, series)?;
    }
    area.draw(&PathElement::new([(ONE, TOP - 8), (ONE, end)], NGINX.stroke_width(2)))?;
    write(area, "nginx = 1", &font(12, NGINX, HPos::Center), ONE, TOP - 18)?;
    legend(area)?;
    write(area, title, &font(11, QUIET, HPos::Left), 24, height - 26)
}

fn row(area: &Area<'_>, y: i32, caption: &str, series: &Series) -> Drawn {
    let Some(ratio) = series.against(Kind::Nginx) else { return Ok(()) };
    write(area, caption, &font(14, INK, HPos::Right), LEFT - 14, y)?;
    let colour = if ratio.median <= 1.0 { OURS } else { WORSE };
    area.draw(&Rectangle::new([(LEFT, y - 10), (x(ratio.median), y + 10)], colour.filled()))?;
    if !ratio.is_point() {
        let (from, to) = (x(ratio.least), x(ratio.most));
        area.draw(&PathElement::new([(from, y), (to, y)], INK.stroke_width(1)))?;
        for end in [from, to] {
            area.draw(&PathElement::new([(end, y - 4), (end, y + 4)], INK.stroke_width(1)))?;
        }
    }
    let inside = font(13, WHITE, HPos::Left).into_font_style(FontStyle::Bold);
    write(area, &figure(ratio.median), &inside, LEFT + 10, y)?;
    if let (Some(haproxy), Some(nginx)) = (series.median(Kind::Haproxy), series.median(Kind::Nginx))
    {
        let at = x(haproxy / nginx);
        diamond(area, at, y)?;
    }
    Ok(())
}

fn diamond(area: &Area<'_>, x: i32, y: i32) -> Drawn {
    // With a white edge, to be seen on a bar.
    for (reach, colour) in [(9, WHITE), (7, HAPROXY)] {
        let corners = [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)];
        area.draw(&Polygon::new(corners, colour.filled()))?;
    }
    Ok(())
}

fn legend(area: &Area<'_>) -> Drawn {
    let y = 30;
    area.draw(&Rectangle::new([(560, y - 7), (588, y + 7)], OURS.filled()))?;
    write(area, "Switchback", &font(13, INK, HPos::Left), 596, y)?;
    diamond(area, 700, y)?;
    write(area, "HAProxy", &font(13, INK, HPos::Left), 714, y)
}

/// The same words in another cut.
trait Cut {
    fn into_font_style(self, style: FontStyle) -> Self;
}

impl Cut for TextStyle<'static> {
    fn into_font_style(mut self, style: FontStyle) -> Self {
        self.font = self.font.style(style);
        self
    }
}
