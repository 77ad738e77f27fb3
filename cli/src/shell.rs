//! Command lines as a shell reads them.

/// Quotes a word for a POSIX shell.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Writes words as one command line.
pub(crate) fn line(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
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
        assert_eq!(line(["wc", "-l", "a b"]), "wc -l 'a b'");
    }
}
