//! nginx's syntax: words, quotes, blocks, comments.

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub words: Vec<String>,
    /// What stands in its braces.
    pub block: Option<Vec<Directive>>,
    /// Its line, from 1.
    pub line: usize,
}

impl Directive {
    /// The nth argument, or nothing.
    #[must_use]
    pub fn word(&self, nth: usize) -> &str {
        self.words.get(nth).map_or("", String::as_str)
    }

    /// What stands in its braces.
    #[must_use]
    pub fn inner(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Why a text is no configuration of nginx.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// Reads a configuration.
pub fn parse(text: &str) -> Result<Vec<Directive>, SyntaxError> {
    let fail = |line: usize, what: &str| SyntaxError { line, what: what.to_owned() };
    // The directives of each block that is open, and the one that opened it.
    let mut open: Vec<(Vec<Directive>, Option<Directive>)> = vec![(Vec::new(), None)];
    let mut words: Vec<String> = Vec::new();
    let mut begun = 0;
    for (token, line) in tokens(text)? {
        let named = |words: &mut Vec<String>, begun| {
            let mut words = std::mem::take(words).into_iter();
            let name = words.next().unwrap_or_default();
            Directive { name, words: words.collect(), block: None, line: begun }
        };
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    begun = line;
                }
                words.push(word);
            }
            Token::End if words.is_empty() => return Err(fail(line, "a `;` after nothing")),
            Token::End => {
                let directive = named(&mut words, begun);
                if let Some((list, _)) = open.last_mut() {
                    list.push(directive);
                }
            }
            Token::Open if words.is_empty() => return Err(fail(line, "a `{` after nothing")),
            Token::Open => open.push((Vec::new(), Some(named(&mut words, begun)))),
            Token::Close if !words.is_empty() => {
                return Err(fail(begun, &format!("`{}` does not end with `;`", words[0])));
            }
            Token::Close => {
                let closed = open.pop().and_then(|(list, opener)| Some((list, opener?)));
                let Some((list, mut opener)) = closed else {
                    return Err(fail(line, "a `}` that closes nothing"));
                };
                opener.block = Some(list);
                if let Some((outer, _)) = open.last_mut() {
                    outer.push(opener);
                }
            }
        }
    }
    if let Some(word) = words.first() {
        return Err(fail(begun, &format!("`{word}` does not end with `;`")));
    }
    match open.pop() {
        Some((list, None)) => Ok(list),
        Some((_, Some(opener))) => {
            Err(fail(opener.line, &format!("the `{{` of `{}` is never closed", opener.name)))
        }
        None => Ok(Vec::new()),
    }
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, SyntaxError> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\n' => line += 1,
            letter if letter.is_whitespace() => {}
            '#' => while letters.next_if(|c| *c != '\n').is_some() {},
            ';' => found.push((Token::End, line)),
            '{' => found.push((Token::Open, line)),
            '}' => found.push((Token::Close, line)),
            quote @ ('"' | '\'') => {
                let begun = line;
                let mut word = String::new();
                loop {
                    match letters.next() {
                        Some(letter) if letter == quote => break,
                        Some('\\') => {
                            let next = letters.next().unwrap_or('\\');
                            // Only quotes and backslashes are escaped; a regular expression keeps its own.
                            if next != quote && next != '\\' {
                                word.push('\\');
                            }
                            word.push(next);
                        }
                        Some(letter) => {
                            line += usize::from(letter == '\n');
                            word.push(letter);
                        }
                        None => {
                            let what = format!("the text after {quote} has no end");
                            return Err(SyntaxError { line: begun, what });
                        }
                    }
                }
                found.push((Token::Word(word), begun));
            }
            letter => {
                let mut word = String::from(letter);
                // `${name}` is the one brace within a word.
                let mut braces = 0;
                while let Some(next) = letters.peek().copied() {
                    let opens = next == '{' && word.ends_with('$');
                    let closes = next == '}' && braces > 0;
                    if next.is_whitespace()
                        || next == ';'
                        || "{}".contains(next) && !opens && !closes
                    {
                        break;
                    }
                    braces += i32::from(opens) - i32::from(closes);
                    word.push(next);
                    letters.next();
                }
                found.push((Token::Word(word), line));
            }
        }
    }
    Ok(found)
}
