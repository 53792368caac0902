//! Tables for eyes, for the page of results, and as pictures.

use std::fmt::Write as _;
use std::path::Path;

use plotters::prelude::*;

/// A table, and what is drawn of it.
pub struct Table {
    /// Names the picture's file.
    pub name: &'static str,
    pub title: &'static str,
    /// What was done, and how to read it.
    pub note: String,
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    pub picture: Picture,
}

/// Bars, a group for each row.
pub struct Picture {
    /// What the numbers are.
    pub axis: &'static str,
    pub is_log: bool,
    pub series: Vec<&'static str>,
    /// A label, and a number of each series: none for what never happens, NaN where there is none.
    pub groups: Vec<(String, Vec<Option<f64>>)>,
    /// A line that something must not cross.
    pub bound: Option<(f64, &'static str)>,
}

const WIDTH: u32 = 860;
const LABELS: i32 = 300;
const BAR: i32 = 11;
const COLOURS: [RGBColor; 7] = [
    RGBColor(31, 111, 180),
    RGBColor(150, 150, 150),
    RGBColor(214, 128, 40),
    RGBColor(176, 60, 60),
    RGBColor(110, 80, 150),
    RGBColor(70, 140, 90),
    RGBColor(150, 190, 120),
];

impl Table {
    /// Prints it in columns.
    pub fn print(&self) {
        println!("\n{}\n{}", self.title, self.note);
        let rows = || {
            let head = self.head.iter().map(ToString::to_string).collect::<Vec<_>>();
            std::iter::once(head).chain(self.rows.iter().cloned())
        };
        let width =
            |column: usize| rows().filter_map(|r| r.get(column).map(|c| c.chars().count())).max();
        let widths: Vec<usize> = (0..self.head.len()).map(|c| width(c).unwrap_or(0)).collect();
        for row in rows() {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
                if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }

    /// The section of the page.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.note);
        let _ = writeln!(text, "| {} |", self.head.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(self.head.len()));
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        let _ = writeln!(text, "\n![{}](results/{}.svg)\n", self.title, self.name);
        text
    }

    /// Draws it into a directory.
    pub fn draw(&self, dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let Picture { axis, is_log, series, groups, bound } = &self.picture;
        let group = BAR * series.len() as i32 + 10;
        let top = 58;
        let height = top + group * groups.len() as i32 + 46;
        let file = dir.join(format!("{}.svg", self.name));
        let root = SVGBackend::new(&file, (WIDTH, height as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let text = |size: i32| ("sans-serif", size).into_font();
        root.draw(&Text::new(self.title, (14, 10), text(17).style(FontStyle::Bold)))?;
        let mut left = 14;
        for (name, colour) in series.iter().zip(COLOURS) {
            root.draw(&Rectangle::new([(left, 38), (left + 11, 49)], colour.filled()))?;
            root.draw(&Text::new(*name, (left + 16, 37), text(13)))?;
            left += 34 + 7 * name.chars().count() as i32;
        }
        let numbers = || {
            groups
                .iter()
                .flat_map(|(_, all)| all.iter().flatten().copied().filter(|n| n.is_finite()))
        };
        let most = numbers().chain(bound.map(|(at, _)| at)).fold(f64::MIN, f64::max);
        let least = numbers().filter(|n| *n > 0.0).fold(f64::MAX, f64::min);
        let from = if *is_log { (least / 2.0).log10() } else { 0.0 };
        let to = if *is_log { (most * 1.6).log10() } else { most.max(1e-9) * 1.12 };
        let room = f64::from(WIDTH as i32 - LABELS - 60);
        let place = |number: f64| {
            let at = if *is_log { number.max(least / 2.0).log10() } else { number };
            LABELS + ((at - from) / (to - from) * room) as i32
        };
        let bottom = top + group * groups.len() as i32;
        let ticks: Vec<f64> = if *is_log {
            (from.floor() as i32..=to.ceil() as i32)
                .flat_map(|power| [1.0, 3.0].map(|n| n * 10_f64.powi(power)))
                .filter(|tick| (from..=to).contains(&tick.log10()))
                .collect()
        } else {
            (0..=5).map(|tick| most * f64::from(tick) / 5.0).collect()
        };
        let light = RGBColor(222, 222, 222);
        for tick in ticks {
            let at = place(tick);
            root.draw(&PathElement::new([(at, top - 4), (at, bottom)], light))?;
            root.draw(&Text::new(short(tick), (at - 8, bottom + 6), text(12)))?;
        }
        root.draw(&Text::new(*axis, (LABELS, bottom + 24), text(13)))?;
        for (at, (label, all)) in groups.iter().enumerate() {
            let y = top + group * at as i32;
            root.draw(&Text::new(label.clone(), (14, y + group / 2 - 12), text(13)))?;
            for (index, (number, colour)) in all.iter().zip(COLOURS).enumerate() {
                let y = y + BAR * index as i32;
                let Some(number) = number else {
                    root.draw(&Text::new("never", (LABELS + 4, y - 1), text(11)))?;
                    continue;
                };
                if number.is_nan() {
                    continue;
                }
                let end = place(*number).max(LABELS + 1);
                root.draw(&Rectangle::new([(LABELS, y), (end, y + BAR - 2)], colour.filled()))?;
                root.draw(&Text::new(short(*number), (end + 4, y - 1), text(11)))?;
            }
        }
        if let Some((bound, name)) = bound {
            let at = place(*bound);
            root.draw(&PathElement::new([(at, top - 6), (at, bottom)], RED.stroke_width(2)))?;
            root.draw(&Text::new(*name, (at + 5, top - 18), text(12).color(&RED)))?;
        }
        root.present()?;
        Ok(())
    }
}

/// A number as it fits beside a bar.
pub fn short(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        n if n >= 10_000.0 => format!("{:.0}k", n / 1_000.0),
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}").trim_end_matches(".0").to_owned(),
        n if n >= 0.1 => format!("{n:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        n => format!("{n:.4}").trim_end_matches('0').to_owned(),
    }
}
