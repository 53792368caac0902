//! Files of `NAME=value` lines, with the rules of `docker run --env-file`: a value is taken as it
//! stands, quotes included; lines that are empty or begin with `#` say nothing.

/// Reads such a file. An error is the number of the line, from 0, and what was expected there.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err((number, "expected NAME=value".to_owned()));
        };
        check_name(name).map_err(|expected| (number, expected))?;
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// Checks the name of a variable.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.bytes().any(|byte| byte == b'=' || byte <= b' ' || byte == 0x7f) {
        return Err("the name of a variable has neither spaces nor '='".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_as_they_stand() {
        let text = "# comment\n\nA=1\n  B= x=\"y\" # z\nC=\r\n";
        let pairs = parse(text).expect("pairs");
        let expected = [("A", "1"), ("B", " x=\"y\" # z"), ("C", "")];
        let expected: Vec<(String, String)> =
            expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(pairs, expected);
        assert_eq!(parse("A=1\nexport\n"), Err((1, "expected NAME=value".to_owned())));
        assert!(parse("export A=1").is_err());
    }
}
