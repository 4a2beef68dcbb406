//! Words in blocks with braces: what keepalived's and nginx' files are made of.

/// Blocks within each other, at most: real files have five.
const DEEPEST: usize = 32;

/// What ends a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The line, as with keepalived; remarks begin with `#` or `!`.
    Line,
    /// A semicolon, as with nginx; remarks begin with `#`.
    Semicolon,
}

/// A statement, with what stands in its block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) words: Vec<String>,
    /// Where it begins, from 1.
    pub(crate) line: usize,
    pub(crate) inner: Vec<Block>,
}

/// Why a text is no blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlocksError {
    #[error("line {0}: a block ends that didn't begin")]
    Unopened(usize),
    #[error("a block of line {0} doesn't end")]
    Unclosed(usize),
    #[error("line {0}: blocks are nested more than {DEEPEST} deep")]
    TooDeep(usize),
}

impl Block {
    /// The first word; empty for a block without one.
    pub(crate) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The first argument.
    pub(crate) fn argument(&self) -> Option<&str> {
        self.words.get(1).map(String::as_str)
    }

    /// The last statement of that name in the block.
    pub(crate) fn last(&self, name: &str) -> Option<&Block> {
        self.inner.iter().rev().find(|block| block.name() == name)
    }

    /// The argument of the last statement of that name in the block.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.last(name)?.argument()
    }
}

/// Reads a text; time and memory are in proportion to its length.
pub(crate) fn blocks(text: &str, ends: Ends) -> Result<Vec<Block>, BlocksError> {
    // The outermost block is the file; the last one is being read.
    let mut open = vec![Block::default()];
    let mut statement = Block::default();
    let mut line = 1;
    let mut letters = text.chars().peekable();
    fn finish(open: &mut [Block], statement: &mut Block) {
        let done = std::mem::take(statement);
        if let Some(block) = open.last_mut().filter(|_| !done.words.is_empty()) {
            block.inner.push(done);
        }
    }
    while let Some(letter) = letters.next() {
        match letter {
            '\n' => {
                line += 1;
                if ends == Ends::Line && !statement.words.is_empty() {
                    // A block may begin on the line after its name.
                    let mut ahead = letters.clone().take(200).skip_while(|c| c.is_whitespace());
                    if ahead.next() != Some('{') {
                        finish(&mut open, &mut statement);
                    }
                }
            }
            ';' if ends == Ends::Semicolon => finish(&mut open, &mut statement),
            '#' => while letters.next_if(|next| *next != '\n').is_some() {},
            '!' if ends == Ends::Line => while letters.next_if(|next| *next != '\n').is_some() {},
            '{' => {
                if open.len() > DEEPEST {
                    return Err(BlocksError::TooDeep(line));
                }
                if statement.words.is_empty() {
                    statement.line = line;
                }
                open.push(std::mem::take(&mut statement));
            }
            '}' => {
                finish(&mut open, &mut statement);
                match (open.pop(), open.last_mut()) {
                    (Some(block), Some(outer)) => outer.inner.push(block),
                    _ => return Err(BlocksError::Unopened(line)),
                }
            }
            _ if letter.is_whitespace() => {}
            _ => {
                if statement.words.is_empty() {
                    statement.line = line;
                }
                statement.words.push(word(letter, &mut letters, &mut line, ends));
            }
        }
    }
    finish(&mut open, &mut statement);
    match open.len() {
        1 => Ok(open.pop().map(|file| file.inner).unwrap_or_default()),
        _ => Err(BlocksError::Unclosed(open.last().map_or(line, |block| block.line))),
    }
}

fn word(
    first: char,
    letters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    line: &mut usize,
    ends: Ends,
) -> String {
    let mut word = String::new();
    if first == '"' || first == '\'' {
        while let Some(letter) = letters.next_if(|next| *next != first) {
            *line += usize::from(letter == '\n');
            word.push(letter);
        }
        letters.next();
        return word;
    }
    word.push(first);
    let ended = |c: &char| c.is_whitespace() || "{}".contains(*c) || *c == ';' && ends == Ends::Semicolon;
    while let Some(letter) = letters.next_if(|next| !ended(next)) {
        word.push(letter);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(blocks: &[Block]) -> Vec<String> {
        blocks.iter().map(|block| format!("{}:{}", block.line, block.words.join(" "))).collect()
    }

    #[test]
    fn lines_end_statements_where_semicolons_dont() {
        let text = "a 1 # x\n! y\nb {\n  c 2\n  d { 10.0.0.1/24 }\n}\ne\n{\n f\n}";
        let read = blocks(text, Ends::Line).unwrap();
        assert_eq!(words_of(&read), ["1:a 1", "3:b", "7:e"]);
        assert_eq!(words_of(&read[1].inner), ["4:c 2", "5:d"]);
        assert_eq!(read[1].last("d").unwrap().inner[0].name(), "10.0.0.1/24");
        assert_eq!(words_of(&read[2].inner), ["9:f"]);
        let text = "s {\n u x {\n  server a:1\n   max_fails=3; server 'b c'; }\n}";
        let read = blocks(text, Ends::Semicolon).unwrap();
        let upstream = &read[0].inner[0];
        assert_eq!(words_of(&upstream.inner), ["3:server a:1 max_fails=3", "4:server b c"]);
    }

    #[test]
    fn what_is_open_or_too_deep_is_said() {
        assert_eq!(blocks("a {\nb {\n}", Ends::Line), Err(BlocksError::Unclosed(1)));
        assert_eq!(blocks("a\n}", Ends::Line), Err(BlocksError::Unopened(2)));
        assert_eq!(blocks(&"a {".repeat(100), Ends::Semicolon), Err(BlocksError::TooDeep(1)));
        assert!(blocks(&"a {".repeat(DEEPEST), Ends::Line).is_err(), "open");
    }
}
