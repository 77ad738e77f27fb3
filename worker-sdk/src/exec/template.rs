//! Placeholders in a command line, as GNU parallel has them, and fields of JSON items.
//!
//! `{}` the item, `{.}` without its extension, `{/}` its last path component, `{//}` its
//! directory, `{/.}` the last component without extension, `{#}` the item's number, and
//! `{item.FIELD}` a field of a JSON object, `{item.A.B}` inside of another. Other braces stay.

use std::borrow::Cow;
use std::ffi::OsString;

use gangline_protocol::Json;
use serde_json::Value;

/// Why a command line cannot be used, or not for this item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing to run.
    #[error("there is no program to run")]
    NoProgram,
    /// An argument with placeholders must be text.
    #[error("argument {0:?} is not UTF-8")]
    NotText(OsString),
    /// The item has no such field.
    #[error("the item has no field {0:?}")]
    NoField(String),
    /// The item has a byte that no argument can have.
    #[error("the item has a NUL byte, which no argument can have; --stdin can")]
    Nul,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Item,
    WithoutExtension,
    Base,
    Directory,
    BaseWithoutExtension,
    Number,
    Field(Vec<String>),
}

/// A command line whose placeholders have been found.
#[derive(Debug, Clone)]
pub struct Template {
    arguments: Vec<Vec<Piece>>,
}

impl Template {
    /// Finds the placeholders; without any the item becomes the last argument, unless it goes to
    /// stdin.
    ///
    /// # Errors
    ///
    /// [`TemplateError::NoProgram`] and [`TemplateError::NotText`].
    pub fn new(
        program: &[OsString],
        replace: Option<&str>,
        stdin: bool,
    ) -> Result<Self, TemplateError> {
        if program.is_empty() {
            return Err(TemplateError::NoProgram);
        }
        let mut arguments = Vec::with_capacity(program.len() + 1);
        for argument in program {
            let text = argument
                .to_str()
                .ok_or_else(|| TemplateError::NotText(argument.clone()))?;
            arguments.push(pieces(text, replace));
        }
        let plain = arguments
            .iter()
            .flatten()
            .all(|piece| matches!(piece, Piece::Text(_)));
        if plain && !stdin {
            arguments.push(vec![Piece::Item]);
        }
        Ok(Self { arguments })
    }

    /// Returns the command line for an item.
    ///
    /// # Errors
    ///
    /// [`TemplateError::NoField`] and [`TemplateError::Nul`].
    pub fn fill(
        &self,
        item: &str,
        payload: &Json,
        number: u64,
    ) -> Result<Vec<String>, TemplateError> {
        let mut parsed = None;
        let mut filled = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            let mut text = String::new();
            for piece in argument {
                match piece {
                    Piece::Text(plain) => text.push_str(plain),
                    Piece::Item => text.push_str(item),
                    Piece::WithoutExtension => text.push_str(without_extension(item)),
                    Piece::Base => text.push_str(base(item)),
                    Piece::Directory => text.push_str(directory(item)),
                    Piece::BaseWithoutExtension => text.push_str(without_extension(base(item))),
                    Piece::Number => text.push_str(&number.to_string()),
                    Piece::Field(path) => {
                        let value = parsed.get_or_insert_with(|| {
                            serde_json::from_str::<Value>(payload.get()).unwrap_or_default()
                        });
                        text.push_str(&field(value, path)?);
                    }
                }
            }
            if text.contains('\0') {
                return Err(TemplateError::Nul);
            }
            filled.push(text);
        }
        Ok(filled)
    }
}

/// Returns an item as a program sees it: a JSON string without its quotes, other JSON as it is.
#[must_use]
pub fn text_of(payload: &Json) -> Cow<'_, str> {
    let json = payload.get();
    if json.starts_with('"')
        && let Ok(text) = serde_json::from_str::<String>(json)
    {
        Cow::Owned(text)
    } else {
        Cow::Borrowed(json)
    }
}

fn pieces(text: &str, replace: Option<&str>) -> Vec<Piece> {
    let item = replace.unwrap_or("{}");
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let found = if !item.is_empty() && rest.starts_with(item) {
            Some((Piece::Item, item.len()))
        } else {
            placeholder(rest)
        };
        match found {
            Some((piece, bytes)) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(piece);
                rest = &rest[bytes..];
            }
            None => {
                plain.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    pieces
}

/// Finds a placeholder other than the item itself at the beginning of a text.
fn placeholder(text: &str) -> Option<(Piece, usize)> {
    let fixed = [
        ("{.}", Piece::WithoutExtension),
        ("{/}", Piece::Base),
        ("{//}", Piece::Directory),
        ("{/.}", Piece::BaseWithoutExtension),
        ("{#}", Piece::Number),
    ];
    for (mark, piece) in fixed {
        if text.starts_with(mark) {
            return Some((piece, mark.len()));
        }
    }
    let inner = text.strip_prefix("{item.")?;
    let end = inner.find('}')?;
    let path: Vec<String> = inner[..end].split('.').map(str::to_owned).collect();
    let named = path
        .iter()
        .all(|name| !name.is_empty() && !name.contains('{'));
    named.then(|| (Piece::Field(path), "{item.".len() + end + 1))
}

fn field<'a>(value: &'a Value, path: &[String]) -> Result<Cow<'a, str>, TemplateError> {
    let found = path.iter().try_fold(value, |value, name| match value {
        Value::Array(values) => name.parse::<usize>().ok().and_then(|at| values.get(at)),
        other => other.get(name),
    });
    match found {
        Some(Value::String(text)) => Ok(Cow::Borrowed(text)),
        Some(other) => Ok(Cow::Owned(other.to_string())),
        None => Err(TemplateError::NoField(path.join("."))),
    }
}

fn base(item: &str) -> &str {
    item.rsplit('/').next().unwrap_or(item)
}

fn directory(item: &str) -> &str {
    match item.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((directory, _)) => directory,
        None => ".",
    }
}

/// The dot must be in the last component and not at its beginning.
fn without_extension(item: &str) -> &str {
    let base_at = item.len() - base(item).len();
    match item[base_at..].rfind('.') {
        Some(dot) if dot > 0 => &item[..base_at + dot],
        Some(_) | None => item,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn json(text: &str) -> Json {
        Arc::from(serde_json::value::RawValue::from_string(text.into()).unwrap())
    }

    #[track_caller]
    fn check(arguments: &[&str], item: &str, wanted: &[&str]) {
        let program: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let payload = json(item);
        let filled = Template::new(&program, None, false)
            .and_then(|template| template.fill(&text_of(&payload), &payload, 7));
        assert_eq!(filled.unwrap(), wanted, "{arguments:?}");
    }

    #[test]
    fn placeholders_are_those_of_gnu_parallel() {
        let item = r#""a b/c.d/photo.tar.gz""#;
        check(&["x", "{}"], item, &["x", "a b/c.d/photo.tar.gz"]);
        check(&["x", "{.}.png"], item, &["x", "a b/c.d/photo.tar.png"]);
        check(&["x", "{/}"], item, &["x", "photo.tar.gz"]);
        check(&["x", "{//}"], item, &["x", "a b/c.d"]);
        check(&["x", "{/.}"], item, &["x", "photo.tar"]);
        check(&["x", "{#}"], item, &["x", "7"]);
        check(
            &["x", "-o{/}={}"],
            item,
            &["x", "-ophoto.tar.gz=a b/c.d/photo.tar.gz"],
        );
        check(&["x", "{.}", "{//}"], r#""plain""#, &["x", "plain", "."]);
        check(
            &["x", "{.}", "{//}"],
            r#""/.bashrc""#,
            &["x", "/.bashrc", "/"],
        );
        check(&["x", "{.}"], r#""a.d/b""#, &["x", "a.d/b"]);
    }

    #[test]
    fn without_a_placeholder_the_item_is_the_last_argument() {
        check(
            &["convert", "-v"],
            r#""a.jpg""#,
            &["convert", "-v", "a.jpg"],
        );
        check(&["x"], "{\"a\": 1}", &["x", "{\"a\": 1}"]);
        let plain = Template::new(&["x".into()], None, true).unwrap();
        assert_eq!(plain.fill("i", &json("1"), 1).unwrap(), ["x"]);
    }

    #[test]
    fn fields_of_objects_are_filled_in() {
        let item = r#"{"name":"a b","size":{"w":3},"tags":["x"]}"#;
        check(
            &[
                "x",
                "{item.name}",
                "{item.size.w}x{item.tags.0}",
                "{item.size}",
            ],
            item,
            &["x", "a b", "3xx", "{\"w\":3}"],
        );
        let program = ["x".into(), "{item.nope}".into()];
        let template = Template::new(&program, None, false).unwrap();
        let error = template.fill(item, &json(item), 1).unwrap_err();
        assert_eq!(error, TemplateError::NoField("nope".into()));
    }

    #[test]
    fn other_braces_are_left_alone() {
        check(
            &["awk", "{print $1}", "${HOME}", "{item.}", "{ }", "{}"],
            r#""f""#,
            &["awk", "{print $1}", "${HOME}", "{item.}", "{ }", "f"],
        );
    }

    #[test]
    fn another_mark_may_stand_for_the_item() {
        let program = ["x".into(), "%%:{}".into()];
        let template = Template::new(&program, Some("%%"), false).unwrap();
        assert_eq!(template.fill("i", &json("1"), 1).unwrap(), ["x", "i:{}"]);
    }

    #[test]
    fn what_no_argument_can_hold_is_refused() {
        let template = Template::new(&["x".into()], None, false).unwrap();
        let payload = json("\"a\\u0000b\"");
        let error = template.fill(&text_of(&payload), &payload, 1).unwrap_err();
        assert_eq!(error, TemplateError::Nul);
        let none = Template::new(&[], None, false).unwrap_err();
        assert_eq!(none, TemplateError::NoProgram);
    }
}
