//! A template that is ready, and the message that it makes of a row.

use std::sync::Arc;

use mail_builder::MessageBuilder;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::raw::Raw;

use super::draft::Draft;
use super::engine::{Engine, OWN_NAMES, Text};
use super::error::{RowError, TemplateError};
use super::fields::{self, Compiled};
use super::files::Files;
use super::front;
use super::identity::{Identity, TokenKey};
use super::parts::Body;
use super::row::{Columns, Row};
use super::source::{carry, check_files, complete, text_of, written};
use super::verp::Pattern;
use crate::mail::{Mailbox, ReversePath};

/// What is the same for all messages of a job.
#[derive(Clone, Debug)]
pub struct Options {
    /// What templates call `job`, if it has a name.
    pub job: Option<String>,
    /// Of two jobs with the same seed, the same row makes the same message.
    pub seed: String,
    /// The value of the Date field (RFC 5322 3.3), for a template without one.
    pub date: String,
    /// The column that tells rows apart; without it, the first recipient does.
    pub key: Option<String>,
    /// Pattern of reverse-paths.
    pub verp: Option<Pattern>,
    /// Key of tokens, for data without a column `token`.
    pub token_key: Option<TokenKey>,
}

/// A message, and where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Composed {
    /// Where bounces go.
    pub reverse_path: ReversePath,
    /// At least one.
    pub recipients: Vec<Mailbox>,
    /// What tells it from other messages of its job.
    pub key: String,
    /// The token of the first recipient, if one is asked for.
    pub token: Option<String>,
    /// Header and body, lines that end in CRLF.
    pub message: Vec<u8>,
}

/// What a person looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Texts {
    /// The plain text, if there is one.
    pub text: Option<String>,
    /// The page, if there is one.
    pub html: Option<String>,
}

/// A template, compiled.
#[derive(Debug)]
pub struct Template {
    file: String,
    pub(super) engine: Engine,
    pub(super) fields: Vec<Compiled>,
    pub(super) body: Body,
    pub(super) options: Options,
    pub(super) job: Option<Arc<str>>,
    pub(super) needs_token: bool,
}

impl Template {
    /// Compiles the template that `files` hold.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(files: Files, options: Options) -> Result<Template, TemplateError> {
        let files = Arc::new(files);
        let file = files.main.clone();
        let text = text_of(&files, &file)?;
        let front = front::split(&file, text)?;
        check_files(&files, &front)?;
        let mut engine = Engine::new(&files);
        let is_complete = ["MIME-Version", "Content-Type"]
            .iter()
            .any(|name| front.all(name).next().is_some());
        let fields = fields::compile(&mut engine, &file, &front, is_complete)?;
        let mut body = if is_complete {
            complete(&mut engine, &files)?
        } else {
            written(&mut engine, &files, &front)?
        };
        carry(&mut body, &files, &front);
        if !fields.iter().any(|field| field.is("From")) {
            let what = "there is no From field";
            return Err(TemplateError::new(&file, 1, what)
                .hint("write who sends it: From: News <news@example.org>"));
        }
        body.fix(&engine)
            .map_err(|error| TemplateError::new(&file, 0, error.what))?;
        let mut template = Template {
            job: options.job.as_deref().map(Arc::from),
            file,
            engine,
            fields,
            body,
            options,
            needs_token: false,
        };
        template.needs_token = template.asks_for("token")
            || template
                .options
                .verp
                .as_ref()
                .is_some_and(Pattern::needs_token);
        Ok(template)
    }

    fn texts(&self) -> impl Iterator<Item = &Text> {
        let fields = self.fields.iter().flat_map(Compiled::texts);
        fields.chain(self.body.texts())
    }

    fn asks_for(&self, name: &str) -> bool {
        let mut texts = self.texts();
        texts.any(|text| self.engine.names(text).iter().any(|known| known == name))
    }

    /// Makes sure that a template asks for nothing that the data have not.
    ///
    /// # Errors
    /// The first name that is no column, with its place, and the column that may be meant.
    pub fn check(&self, columns: &Columns) -> Result<(), TemplateError> {
        for text in self.texts() {
            for name in self.engine.names(text) {
                let is_own = OWN_NAMES.contains(&name.as_str()) || name == "content";
                if columns.position(&name).is_none() && !is_own {
                    let mut error = self.engine.place(text, &name);
                    error.what = format!("there is no column `{name}`");
                    let names: Vec<&str> = columns.names().iter().map(|name| &**name).collect();
                    return Err(error.hint(format!("the columns are {}", names.join(", "))));
                }
            }
        }
        let has_token = columns.position("token").is_some() || self.options.token_key.is_some();
        if self.needs_token && !has_token {
            let what = "it asks for a token, and there is neither a column `token` nor a key to make tokens with";
            return Err(TemplateError::new(&self.file, 0, what)
                .hint("give --token-key FILE, a file with at least 16 random characters"));
        }
        if self.asks_for("job") && columns.position("job").is_none() && self.job.is_none() {
            let what = "it asks for the name of the job, and that has none";
            return Err(TemplateError::new(&self.file, 0, what).hint("give --job NAME"));
        }
        if let Some(key) = &self.options.key
            && columns.position(key).is_none()
        {
            let what = format!("there is no column `{key}`, which is to tell rows apart");
            return Err(TemplateError::new(&self.file, 0, what));
        }
        if self.recipient_column(columns).is_none() && !self.names_recipients() {
            let what = "there is no To field, and the data have no column `email`";
            return Err(TemplateError::new(&self.file, 1, what)
                .hint("write to whom it goes: To: {{ name }} <{{ address }}>"));
        }
        Ok(())
    }

    pub(super) fn names_recipients(&self) -> bool {
        ["To", "Cc", "Bcc", "X-Envelope-To"]
            .iter()
            .any(|name| self.fields.iter().any(|field| field.is(name)))
    }

    /// The column of addresses, for a template that names no recipient.
    pub(super) fn recipient_column<'a>(&self, columns: &'a Columns) -> Option<&'a str> {
        let mut names = columns.names().iter();
        names
            .find(|name| name.eq_ignore_ascii_case("email"))
            .map(|name| &**name)
    }

    /// The message for a row.
    ///
    /// # Errors
    /// What keeps the row from being a message, and the column to blame.
    pub fn compose(&self, row: Row) -> Result<Composed, RowError> {
        let draft = self.draft(row)?;
        let Draft { scope, value, .. } = &draft;
        let identity = Identity::new(&self.options.seed, &draft.key);
        let mut builder = MessageBuilder::new();
        for (field, header) in &draft.header {
            builder = builder.header(*field, header.clone());
        }
        if !draft.has("Date") {
            builder = builder.header("Date", Raw::new(self.options.date.as_str()));
        }
        if !draft.has("Message-ID") {
            let id = format!("{}@{}", identity.message_id(), draft.domain);
            builder = builder.header("Message-ID", MessageId::new(id));
        }
        let body = self.body.compose(&self.engine, scope, value, &identity)?;
        let mut message = Vec::new();
        builder.body(body).serialize(&mut message);
        Ok(Composed {
            reverse_path: draft.reverse_path,
            recipients: draft.recipients,
            key: draft.key,
            token: draft.scope.token,
            message,
        })
    }

    /// The texts for a row, as a person reads them.
    ///
    /// # Errors
    /// As [`compose`](Template::compose).
    pub fn texts_for(&self, row: Row) -> Result<Texts, RowError> {
        let draft = self.draft(row)?;
        let rendered = self.body.rendered(&self.engine, &draft.scope, &draft.value);
        rendered.map(|(text, html)| Texts { text, html })
    }
}
