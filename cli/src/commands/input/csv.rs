//! Records of comma-separated values (RFC 4180), as objects whose fields the first record names.

use std::io::BufRead;

use gangline_worker::protocol::limits::PAYLOAD_BYTES_MAX;

use crate::error::Error;

/// Objects from records.
pub(super) struct Csv {
    reader: Box<dyn BufRead + Send>,
    name: String,
    /// How many lines have been read.
    line: u64,
    /// The fields' names; none before the first record.
    header: Option<Vec<String>>,
}

/// A value and where it begins.
struct Field {
    text: String,
    line: u64,
    column: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of a field.
    Start,
    Plain,
    Quoted,
    /// After a quote inside of quotes: the end, or the first of two.
    Quote,
}

impl Csv {
    pub(super) fn new(reader: Box<dyn BufRead + Send>, name: String) -> Self {
        Self {
            reader,
            name,
            line: 0,
            header: None,
        }
    }

    /// Returns the next record as a JSON object with its fields in their order.
    pub(super) fn object(&mut self) -> Result<Option<String>, Error> {
        let header = match self.header.take() {
            Some(header) => header,
            None => match self.record()? {
                Some(fields) => self.names(fields)?,
                None => return Ok(None),
            },
        };
        let Some(fields) = self.record()? else {
            self.header = Some(header);
            return Ok(None);
        };
        if fields.len() != header.len() {
            let (found, wanted) = (fields.len(), header.len());
            // The first that is too much, or the last of those that are there.
            let at = fields.get(wanted).or(fields.last());
            let (line, column) = at.map_or((self.line, 1), |field| (field.line, field.column));
            let text = format!("{found} fields, and the header names {wanted}");
            return Err(self.error(line, column, &text));
        }
        let pairs: Vec<String> = header
            .iter()
            .zip(&fields)
            .map(|(name, field)| format!("{}:{}", json(name), json(&field.text)))
            .collect();
        self.header = Some(header);
        Ok(Some(format!("{{{}}}", pairs.join(","))))
    }

    fn names(&self, fields: Vec<Field>) -> Result<Vec<String>, Error> {
        let mut names: Vec<String> = Vec::with_capacity(fields.len());
        for Field { text, line, column } in fields {
            if text.is_empty() {
                return Err(self.error(line, column, "a field without a name"));
            }
            if names.contains(&text) {
                return Err(self.error(line, column, &format!("a second field {text:?}")));
            }
            names.push(text);
        }
        Ok(names)
    }

    fn error(&self, line: u64, column: usize, text: &str) -> Error {
        let name = &self.name;
        Error::usage(format!("{name}, line {line}, column {column}: {text}")).hint(
            "the first line names the fields; a value with a comma, a quote or a line end stands \
             in quotes, a quote in it twice",
        )
    }

    /// Reads a line with its end; none at the end of the input.
    fn line(&mut self) -> Result<Option<String>, Error> {
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line);
        let read =
            read.map_err(|error| Error::disk(format!("cannot read {}: {error}", self.name)))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        if self.line == 1 && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        String::from_utf8(line).map(Some).map_err(|error| {
            let at = error.utf8_error().valid_up_to() + 1;
            let text = format!("{}, line {}: not UTF-8, at byte {at}", self.name, self.line);
            Error::usage(text).hint("iconv -t UTF-8 writes it anew")
        })
    }

    /// Reads the fields of the next record that is not an empty line.
    fn record(&mut self) -> Result<Option<Vec<Field>>, Error> {
        let line = loop {
            match self.line()? {
                None => return Ok(None),
                Some(line) if line.trim_end_matches(['\n', '\r']).is_empty() => {}
                Some(line) => break line,
            }
        };
        let mut fields = Vec::new();
        let mut field = self.field(1);
        let mut state = State::Start;
        let mut line = line;
        loop {
            let whole = line.trim_end_matches('\n');
            let whole = whole.strip_suffix('\r').unwrap_or(whole);
            for (column, c) in (1..).zip(whole.chars()) {
                state = match (state, c) {
                    (State::Start | State::Plain | State::Quote, ',') => {
                        fields.push(std::mem::replace(&mut field, self.field(column + 1)));
                        State::Start
                    }
                    (State::Start, '"') => State::Quoted,
                    (State::Plain, '"') => {
                        let text = "a quote in a value that is not in quotes";
                        return Err(self.error(self.line, column, text));
                    }
                    (State::Quoted, '"') => State::Quote,
                    (State::Quote, c) if c != '"' => {
                        let text = "after a closing quote comes a comma or the end of the line";
                        return Err(self.error(self.line, column, text));
                    }
                    (state, c) => {
                        field.text.push(c);
                        match state {
                            State::Start | State::Plain => State::Plain,
                            State::Quoted | State::Quote => State::Quoted,
                        }
                    }
                };
            }
            if state != State::Quoted {
                fields.push(field);
                return Ok(Some(fields));
            }
            field.text.push_str(&line[whole.len()..]);
            let next = match field.text.len() {
                0..PAYLOAD_BYTES_MAX => self.line()?,
                _ => None,
            };
            let Some(next) = next else {
                let text = "the quote that begins here has no end";
                return Err(self.error(field.line, field.column, text));
            };
            line = next;
        }
    }

    fn field(&self, column: usize) -> Field {
        Field {
            text: String::new(),
            line: self.line,
            column,
        }
    }
}

fn json(text: &str) -> String {
    serde_json::to_string(text).expect("a text can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Result<Vec<String>, String> {
        let mut csv = Csv::new(Box::new(text.as_bytes()), "a.csv".into());
        let mut objects = Vec::new();
        while let Some(object) = csv.object().map_err(|error| error.to_string())? {
            objects.push(object);
        }
        Ok(objects)
    }

    #[test]
    fn records_become_objects() {
        let text = "\u{feff}name,id\r\na,1\r\n\r\n\"b, c\",\"say \"\"hi\"\"\nthere\"\r\n,x";
        let wanted = [
            r#"{"name":"a","id":"1"}"#,
            r#"{"name":"b, c","id":"say \"hi\"\nthere"}"#,
            r#"{"name":"","id":"x"}"#,
        ];
        assert_eq!(read(text).unwrap(), wanted);
        assert_eq!(read("").unwrap(), [""; 0]);
        assert_eq!(read("a,b\n").unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_named_with_line_and_column() {
        let cases = [
            (
                "a,b\n1\n",
                "line 2, column 1: 1 fields, and the header names 2",
            ),
            (
                "a,b\n1,2,3\n",
                "line 2, column 5: 3 fields, and the header names 2",
            ),
            ("a,b\n1,x\"y\n", "line 2, column 4: a quote in a value"),
            ("a,b\n\"é\"x,2\n", "line 2, column 4: after a closing quote"),
            (
                "a,b\n1,\"x\ny\n",
                "line 2, column 3: the quote that begins here",
            ),
            ("a,,c\n", "line 1, column 3: a field without a name"),
            ("a,b,a\n", "line 1, column 5: a second field \"a\""),
        ];
        for (text, wanted) in cases {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(&format!("a.csv, {wanted}")), "{error}");
        }
    }

    #[test]
    fn a_quote_without_an_end_is_not_looked_for_forever() {
        let endless = std::io::Cursor::new([b"a\n\"".to_vec(), vec![b'\n'; 3 << 20]].concat());
        let mut csv = Csv::new(Box::new(endless), "a.csv".into());
        let error = csv.object().unwrap_err().to_string();
        assert!(error.contains("line 2, column 1: the quote"), "{error}");
        assert!(csv.line < 2 << 20, "{}", csv.line);
    }
}
