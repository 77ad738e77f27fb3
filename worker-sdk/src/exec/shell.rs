//! Command lines as a shell reads them.

/// Quotes a word for a POSIX shell. What would break the line goes into `$'…'` (POSIX.1-2024,
/// 2.2.4), so that a quoted word is always one line.
#[must_use]
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if !word.contains(|c: char| c.is_ascii_control()) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let mut quoted = String::from("$'");
    for c in word.chars() {
        match c {
            '\n' => quoted.push_str(r"\n"),
            '\r' => quoted.push_str(r"\r"),
            '\t' => quoted.push_str(r"\t"),
            '\\' | '\'' => quoted.extend(['\\', c]),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\{:03o}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// Writes words as one command line.
#[must_use]
pub fn line(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| quote(word.as_ref())).collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{line, quote};

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quote("a/b.c"), "a/b.c");
        assert_eq!(quote("it's $1"), r"'it'\''s $1'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a\n'\\\u{1}b"), r"$'a\n\'\\\001b'");
        assert_eq!(line(["wc", "-l", "a b"]), "wc -l 'a b'");
    }
}
