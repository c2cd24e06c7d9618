//! Mail merge: a template and the row of a recipient become a message.
//!
//! A template is a header and a body ([`front`]): a plain text, an HTML page or a Markdown text whose header says the rest, or a
//! complete message with parts of its own. Header fields and bodies may hold `{{ column }}` and the logic of Jinja. [`Template`] is compiled
//! once; what no row can change is encoded then, and only the rest is rendered for each row.
//!
//! INVARIANTS: the same template, job and row give the same bytes, whenever and wherever. A value can never add a header field,
//! an address or a recipient: it is quoted where it may stand and refused where it may not. Files are given as bytes ([`Files`]):
//! nothing is opened here.

mod address;
mod draft;
mod eml;
mod engine;
mod error;
mod fields;
mod files;
pub mod front;
mod identity;
mod markdown;
mod parts;
mod row;
mod source;
mod template;
mod verp;

pub use error::{RowError, TemplateError};
pub use files::{Files, references};
pub use identity::{Identity, TokenKey};
pub use row::{Columns, Row};
pub use template::{Composed, Options, Template, Texts};
pub use verp::{Pattern, PatternError};

#[cfg(test)]
mod tests;
