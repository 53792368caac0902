//! A message in the words of each recipient. Pure.

use serde_json::{Value, json};

use super::message::Message;

/// The most characters of a text on Telegram, of which a part goes to links.
const TELEGRAM: usize = 3_000;
/// The most characters of a text on Discord is 2,000.
const DISCORD: usize = 1_200;
/// What others take without cutting it themselves.
const OTHERS: usize = 3_500;

/// A link with what stands on its button.
pub type Button = (&'static str, String);

/// For Telegram's `sendMessage`.
pub fn telegram(message: &Message, buttons: &[Button], chat: &str) -> Value {
    let (title, rest) = parts(message, TELEGRAM);
    let mut text = format!("<b>{}</b>", html(&title));
    if !rest.is_empty() {
        text = format!("{text}\n{}", html(&rest));
    }
    let links: Vec<String> = buttons
        .iter()
        .map(|(label, url)| format!("<a href=\"{}\">{}</a>", html(url), html(label)))
        .collect();
    if !links.is_empty() {
        text = format!("{text}\n\n{}", links.join("   "));
    }
    json!({
        "chat_id": chat,
        "text": text,
        "parse_mode": "HTML",
        "link_preview_options": { "is_disabled": true },
    })
}

/// For Slack's incoming webhooks.
pub fn slack(message: &Message, buttons: &[Button]) -> Value {
    let (title, rest) = parts(message, OTHERS);
    // Their three entities; no other character is special outside of marks.
    let escape = |text: &str| html(text).replace("&quot;", "\"");
    let mut text = format!("*{}*", escape(&title));
    if !rest.is_empty() {
        text = format!("{text}\n{}", escape(&rest));
    }
    for (label, url) in buttons {
        text = format!("{text}\n<{url}|{label}>");
    }
    json!({ "text": text, "unfurl_links": false, "unfurl_media": false })
}

/// For Discord's webhooks. Nobody is mentioned, whatever an app wrote; nothing is previewed.
pub fn discord(message: &Message, buttons: &[Button]) -> Value {
    const SUPPRESS_EMBEDS: u32 = 1 << 2;
    let (title, rest) = parts(message, DISCORD);
    let mut text = format!("**{}**", markdown(&title));
    if !rest.is_empty() {
        text = format!("{text}\n{}", markdown(&rest));
    }
    for (label, url) in buttons {
        text = format!("{text}\n[{label}](<{url}>)");
    }
    json!({ "content": text, "allowed_mentions": { "parse": [] }, "flags": SUPPRESS_EMBEDS })
}

/// For Teams' workflows: an adaptive card.
pub fn teams(message: &Message, buttons: &[Button]) -> Value {
    let (title, rest) = parts(message, OTHERS);
    let mut body = vec![json!({
        "type": "TextBlock", "text": markdown(&title), "weight": "Bolder", "wrap": true,
    })];
    if !rest.is_empty() {
        // A line break of theirs is an empty line.
        let text = markdown(&rest).replace('\n', "\n\n");
        body.push(json!({ "type": "TextBlock", "text": text, "wrap": true }));
    }
    let actions: Vec<Value> = buttons
        .iter()
        .map(|(label, url)| json!({ "type": "Action.OpenUrl", "title": label, "url": url }))
        .collect();
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": body,
                "actions": actions,
            },
        }],
    })
}

/// For programs.
pub fn webhook(message: &Message, buttons: &[(&'static str, String)], id: &str) -> Value {
    let mut facts = message.facts.clone();
    let links: serde_json::Map<String, Value> =
        buttons.iter().map(|(name, url)| ((*name).to_owned(), Value::from(url.as_str()))).collect();
    facts["id"] = id.into();
    facts["at"] = message.at.as_str().into();
    facts["title"] = message.title.as_str().into();
    facts["text"] = message.text().into();
    facts["links"] = Value::Object(links);
    facts
}

/// Subject and body of a mail.
pub fn mail(message: &Message, buttons: &[Button]) -> (String, String) {
    let mut body = message.text();
    for (label, url) in buttons {
        body = format!("{body}\n\n{label}:\n{url}");
    }
    // A line break in a subject would begin another field.
    let subject = message.title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    (subject, body + "\n")
}

/// Title and the other lines, together no longer than `most` characters.
fn parts(message: &Message, most: usize) -> (String, String) {
    let title = clip(&message.title, most / 4);
    let rest = clip(&message.lines.join("\n"), most - title.chars().count());
    (title, rest)
}

fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut clipped: String = text.chars().take(most.saturating_sub(1)).collect();
    clipped.push('…');
    clipped
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '*' | '_' | '`' | '~' | '|' | '[' | ']' | '<' | '>') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            title: "web: <b>revision 4</b> & co".to_owned(),
            lines: vec!["errors *3.5 %* @everyone".to_owned()],
            ..Message::test()
        }
    }

    #[test]
    fn what_an_app_wrote_is_text_everywhere() {
        let buttons = [("Approve", "https://ops.example.com/links/a.b".to_owned())];
        let text = telegram(&message(), &buttons, "-100")["text"].to_string();
        assert!(text.contains("<b>web: &lt;b&gt;revision 4&lt;/b&gt; &amp; co</b>"), "{text}");
        assert!(text.contains("<a href=\\\"https://ops.example.com/links/a.b\\\">Approve</a>"));
        let text = slack(&message(), &buttons)["text"].to_string();
        assert!(text.contains("&lt;b&gt;") && text.contains("/links/a.b|Approve>"), "{text}");
        let said = discord(&message(), &buttons);
        assert_eq!(said["allowed_mentions"]["parse"], json!([]));
        assert!(said["content"].as_str().unwrap().contains("\\*3.5 %\\*"), "{said}");
        let card = teams(&message(), &buttons);
        let card = &card["attachments"][0]["content"];
        assert_eq!(card["actions"][0]["url"], "https://ops.example.com/links/a.b");
        let split = Message { title: "a\r\nBcc: x".to_owned(), ..message() };
        assert_eq!(mail(&split, &[]).0, "a  Bcc: x");
    }

    #[test]
    fn long_messages_are_cut_where_the_recipient_would_refuse_them() {
        let long = Message { lines: vec!["x".repeat(10_000)], ..message() };
        let length = |value: &Value| value.as_str().unwrap().chars().count();
        assert!(length(&discord(&long, &[])["content"]) < 2_000);
        assert!(length(&telegram(&long, &[], "1")["text"]) < 4_096);
    }
}
