//! The template language: strict about what it does not know, bounded in what a row may cost, and careful about where a value goes.
//!
//! The name of a template begins with the letter of its [`Mode`], and what it includes is read in the same mode. In HTML values
//! are escaped; in Markdown that becomes HTML each punctuation character of a value is; `|safe` says otherwise. Nothing (NULL) is written
//! as nothing; a name that nobody knows is an error with its place.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};
use serde_json::Value as Json;

use super::error::{RowError, TemplateError};
use super::files::Files;
use super::row::Row;

/// So many steps of the template language a row may take.
const FUEL: u64 = 1_000_000;

/// What a template's text becomes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Mode {
    /// A header field.
    Field,
    /// Plain text.
    Text,
    /// HTML.
    Html,
    /// Markdown that becomes HTML.
    Markdown,
}

impl Mode {
    fn letter(self) -> char {
        match self {
            Mode::Field => 'f',
            Mode::Text => 't',
            Mode::Html => 'h',
            Mode::Markdown => 'm',
        }
    }
}

/// A text of a template: rendered for each row, or the same for all.
#[derive(Clone, Debug)]
pub(super) enum Text {
    Fixed(String),
    /// The name of a template of the engine.
    Rendered(String),
}

/// All templates of a message.
#[derive(Debug)]
pub(super) struct Engine {
    environment: Environment<'static>,
    /// Where the templates come from: file and first line.
    places: HashMap<String, (String, usize)>,
}

impl Engine {
    pub(super) fn new(files: &Arc<Files>) -> Engine {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(
            SyntaxConfig::builder()
                .keep_trailing_newline(true)
                .trim_blocks(true)
                .build()
                .unwrap_or_default(),
        );
        environment.set_fuel(Some(FUEL));
        environment.set_debug(true);
        environment.set_formatter(format);
        environment.set_auto_escape_callback(|name| match name.as_bytes().first() {
            Some(b'h') => AutoEscape::Html,
            Some(b'm') => AutoEscape::Custom("markdown".into()),
            _ => AutoEscape::None,
        });
        environment.set_path_join_callback(|name, parent| {
            format!("{}:{name}", &parent[..1.min(parent.len())]).into()
        });
        let files = Arc::clone(files);
        environment.set_loader(move |name| {
            let file = name.get(2..).unwrap_or_default();
            Ok(files.text(file).map(str::to_owned))
        });
        Engine {
            environment,
            places: HashMap::new(),
        }
    }

    /// Adds a text that stands in `file` from `line` on; `label` tells it from others that do.
    pub(super) fn add(
        &mut self,
        mode: Mode,
        label: &str,
        (file, line): (&str, usize),
        source: &str,
    ) -> Result<Text, TemplateError> {
        if !["{{", "{%", "{#"].iter().any(|tag| source.contains(tag)) {
            return Ok(Text::Fixed(source.to_owned()));
        }
        let name = format!("{}:{file}:{line}:{label}", mode.letter());
        self.places.insert(name.clone(), (file.to_owned(), line));
        self.environment
            .add_template_owned(name.clone(), source.to_owned())
            .map_err(|error| self.template_error(&error))?;
        Ok(Text::Rendered(name))
    }

    /// The names that a text asks its row for, those left out that it provides for being without (`default`, `is defined`).
    pub(super) fn names(&self, text: &Text) -> Vec<String> {
        let Text::Rendered(name) = text else {
            return Vec::new();
        };
        let Ok(template) = self.environment.get_template(name) else {
            return Vec::new();
        };
        let source = template.source();
        let is_known = |name: &String| self.environment.globals().any(|(known, _)| known == name);
        let mut names: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        names.retain(|name| !is_known(name) && !may_be_missing(source, name));
        names.sort();
        names
    }

    /// Where `name` stands in a text.
    pub(super) fn place(&self, text: &Text, name: &str) -> TemplateError {
        let Text::Rendered(template) = text else {
            return TemplateError::new("", 0, "");
        };
        let source = self
            .environment
            .get_template(template)
            .map(|template| template.source().to_owned())
            .unwrap_or_default();
        self.error_at(template, &source, word_at(&source, name), String::new())
    }

    pub(super) fn render(&self, text: &Text, scope: &Value) -> Result<String, RowError> {
        match text {
            Text::Fixed(text) => Ok(text.clone()),
            Text::Rendered(name) => self
                .environment
                .get_template(name)
                .and_then(|template| template.render(scope.clone()))
                .map_err(|error| RowError::new(self.template_error(&error).to_string())),
        }
    }

    /// The error with its place in the file that the user wrote.
    fn template_error(&self, error: &Error) -> TemplateError {
        let name = error.name().unwrap_or_default();
        let what = what(error);
        match (error.template_source(), error.range()) {
            (Some(source), Some(range)) => self.error_at(name, source, Some(range.start), what),
            _ => {
                let (file, first) = self.origin(name);
                let line = error.line().map_or(0, |line| first + line - 1);
                TemplateError::new(&file, line, what)
            }
        }
    }

    fn error_at(&self, name: &str, source: &str, at: Option<usize>, what: String) -> TemplateError {
        let (file, first) = self.origin(name);
        let before = at.and_then(|at| source.get(..at)).unwrap_or_default();
        let line = first + before.matches('\n').count();
        let mut error = TemplateError::new(&file, line, what);
        let begin = before.rfind('\n').map_or(0, |at| at + 1);
        // Where a field's value begins in its line is not kept.
        if !name.starts_with('f') {
            error.column = before[begin..].chars().count() + 1;
        }
        error
    }

    fn origin(&self, name: &str) -> (String, usize) {
        match self.places.get(name) {
            Some(place) => place.clone(),
            None => (name.get(2..).unwrap_or(name).to_owned(), 1),
        }
    }
}

fn what(error: &Error) -> String {
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::UndefinedError if detail.is_empty() => "unknown name".to_owned(),
        ErrorKind::OutOfFuel => "it does not come to an end (more than a million steps)".to_owned(),
        kind if detail.is_empty() => kind.to_string(),
        _ => detail.to_owned(),
    }
}

/// True if the text says what is to be if there is no such name.
fn may_be_missing(source: &str, name: &str) -> bool {
    source.match_indices(name).any(|(at, _)| {
        let tail = source[at + name.len()..].trim_start();
        let filter = tail.strip_prefix('|').map(str::trim_start);
        tail.starts_with("is defined")
            || tail.starts_with("is not defined")
            || tail.starts_with("is undefined")
            || filter.is_some_and(|filter| filter.starts_with("default"))
    })
}

/// Where `name` stands as a word of its own within a tag.
fn word_at(source: &str, name: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    source.match_indices(name).map(|(at, _)| at).find(|&at| {
        let opens = source[..at].rfind("{{").max(source[..at].rfind("{%"));
        let closes = source[..at].rfind("}}").max(source[..at].rfind("%}"));
        opens > closes
            && !source[..at].ends_with(is_part)
            && !source[at + name.len()..].starts_with(is_part)
    })
}

fn format(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.is_none() {
        return Ok(());
    }
    match state.auto_escape() {
        AutoEscape::Custom(_) if value.is_safe() => out.write_str(&value.to_string()),
        AutoEscape::Custom(_) => escape_markdown(out, &value.to_string()),
        _ => return minijinja::escape_formatter(out, state, value),
    }
    .map_err(Error::from)
}

/// CommonMark 2.4: a backslash takes the meaning from any ASCII punctuation character.
fn escape_markdown(out: &mut Output<'_>, text: &str) -> std::fmt::Result {
    for part in text.split_inclusive(|c: char| c.is_ascii_punctuation()) {
        match part.chars().next_back() {
            Some(last) if last.is_ascii_punctuation() => {
                out.write_str(&part[..part.len() - 1])?;
                out.write_str("\\")?;
                out.write_str(&part[part.len() - 1..])?;
            }
            _ => out.write_str(part)?,
        }
    }
    Ok(())
}

/// Names that a template may use beside its columns.
pub(super) const OWN_NAMES: [&str; 5] = ["row", "row_number", "job", "recipient", "token"];

/// What a template sees: the columns of a row, and what is known of its message. A column goes before a name of ours.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) row: Arc<RowObject>,
    pub(super) job: Option<Arc<str>>,
    /// The first recipient; empty as long as it is not known.
    pub(super) recipient: String,
    pub(super) token: Option<String>,
    /// What a layout is put around.
    pub(super) content: Option<Value>,
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        self.get_value_by_str(name)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        if let Some(value) = self.row.get_value_by_str(name) {
            return Some(value);
        }
        match name {
            "row" => Some(Value::from_dyn_object(Arc::clone(&self.row))),
            "row_number" => Some(self.row.0.number.into()),
            "job" => self.job.as_deref().map(Value::from),
            "recipient" if !self.recipient.is_empty() => Some(Value::from(self.recipient.as_str())),
            "token" => self.token.as_deref().map(Value::from),
            "content" => self.content.clone(),
            _ => None,
        }
    }
}

/// A row as a template sees it.
#[derive(Clone, Debug)]
pub(super) struct RowObject(pub(super) Row);

impl Object for RowObject {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        Some(match self.0.get(name)? {
            Json::Null => Value::from(()),
            Json::String(text) => Value::from(text.as_str()),
            other => Value::from(minijinja::value::Serde(other)),
        })
    }

    fn enumerate(self: &Arc<Self>) -> minijinja::value::Enumerator {
        let names = self.0.columns.names();
        minijinja::value::Enumerator::Values(
            names.iter().map(|name| Value::from(&**name)).collect(),
        )
    }
}
