//! The beginning of a template: header fields, one a line, up to an empty line, or between two lines of three hyphens.

use super::error::TemplateError;
use crate::mbox::field::split_name;

/// A field of a template's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name, as it was written.
    pub name: String,
    /// Its value, unfolded and without blanks around it.
    pub value: String,
    /// The line that it begins in, from 1.
    pub line: usize,
}

/// A template taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Front<'a> {
    /// The fields, in order.
    pub fields: Vec<Field>,
    /// What follows them.
    pub body: &'a str,
    /// The line that the body begins in, from 1.
    pub body_line: usize,
}

impl Front<'_> {
    /// The fields called `name`.
    pub fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f Field> {
        self.fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
    }
}

/// Takes the template in `file` apart.
///
/// # Errors
/// A line that is no field.
pub fn split<'a>(file: &str, text: &'a str) -> Result<Front<'a>, TemplateError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = text;
    let mut number = 0;
    let mut fields: Vec<Field> = Vec::new();
    let is_fenced = text.lines().next().is_some_and(is_fence);
    let mut is_open = true;
    while is_open && !rest.is_empty() {
        let end = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let line = rest[..end].trim_end_matches(['\n', '\r']);
        rest = &rest[end..];
        number += 1;
        match () {
            () if is_fenced && number == 1 => {}
            () if is_fenced && is_fence(line) => is_open = false,
            () if !is_fenced && line.is_empty() => is_open = false,
            () if is_fenced && line.trim().is_empty() => {}
            () => take_line(file, line, number, &mut fields)?,
        }
    }
    if is_fenced && is_open {
        let what = "the header that begins with --- has no end";
        return Err(TemplateError::new(file, 1, what).hint("write --- below its last field"));
    }
    Ok(Front {
        fields,
        body: rest,
        body_line: number + 1,
    })
}

fn is_fence(line: &str) -> bool {
    line.trim_end() == "---"
}

fn take_line(
    file: &str,
    line: &str,
    number: usize,
    fields: &mut Vec<Field>,
) -> Result<(), TemplateError> {
    if line.starts_with([' ', '\t'])
        && let Some(last) = fields.last_mut()
    {
        last.value.push(' ');
        last.value.push_str(line.trim());
        return Ok(());
    }
    let Some((name, value)) = split_name(line.as_bytes()) else {
        let what =
            "neither a header field such as `Subject: News` nor an empty line before the body";
        return Err(TemplateError::new(file, number, what));
    };
    fields.push(Field {
        name: String::from_utf8_lossy(name).into_owned(),
        value: line[value..].trim().to_owned(),
        line: number,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, String, usize)> {
        let front = split("t", text).unwrap();
        let each = |field: Field| (field.name, field.value, field.line);
        front.fields.into_iter().map(each).collect()
    }

    #[test]
    fn a_header_ends_at_an_empty_line_or_at_its_fence() {
        let want = vec![
            ("From".to_owned(), "a@b.example".to_owned(), 1),
            ("Subject".to_owned(), "one two".to_owned(), 2),
        ];
        for text in [
            "From: a@b.example\nSubject: one\n  two\n\nHello\n",
            "From: a@b.example\r\nSubject:one\r\n\ttwo\r\n\r\nHello\n",
        ] {
            assert_eq!(names(text), want);
            let front = split("t", text).unwrap();
            assert_eq!((front.body, front.body_line), ("Hello\n", 5));
        }
        let fenced = "\u{feff}---\nFrom: a@b.example\n\nSubject: x\n---\n\nHello\n";
        assert_eq!(names(fenced)[1], ("Subject".to_owned(), "x".to_owned(), 4));
        let front = split("t", fenced).unwrap();
        assert_eq!((front.body, front.body_line), ("\nHello\n", 6));
    }

    #[test]
    fn what_is_no_field_is_named_by_its_line() {
        for (text, line) in [
            ("Hello\n", 1),
            ("From: a@b\nHello there\n\n", 2),
            ("---\nFrom: a@b\n", 1),
            (" x\n", 1),
        ] {
            let error = split("t.md", text).unwrap_err();
            assert_eq!(
                (error.file.as_str(), error.line),
                ("t.md", line),
                "{text:?}"
            );
        }
    }
}
