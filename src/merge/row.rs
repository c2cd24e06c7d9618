//! A row of data: named values, as a template sees them.
//!
//! A column whose name is no identifier (`First Name`) is also known with `_` for what cannot stand in one (`First_Name`).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;

/// The names of the columns of a table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Columns {
    names: Vec<Arc<str>>,
    index: HashMap<Arc<str>, usize>,
}

impl Columns {
    /// Those with these names.
    ///
    /// # Errors
    /// The name that is there twice.
    pub fn new(names: impl IntoIterator<Item = String>) -> Result<Columns, String> {
        let names: Vec<Arc<str>> = names.into_iter().map(Arc::from).collect();
        let mut index = HashMap::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            // A table may have columns that nobody named: nobody can ask for them.
            if !name.is_empty() && index.insert(name.clone(), at).is_some() {
                return Err(name.to_string());
            }
        }
        for (at, name) in names.iter().enumerate() {
            if let Some(alias) = alias(name) {
                index.entry(alias.into()).or_insert(at);
            }
        }
        Ok(Columns { names, index })
    }

    /// The names, in the order of the table.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Where the column called `name` is.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// All that a template may say for a column.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(|name| &**name)
    }
}

/// An identifier for a name that is none.
fn alias(name: &str) -> Option<String> {
    let is_fit = |c: char| c.is_alphanumeric() || c == '_';
    let begins_well = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    if name.is_empty() || (begins_well && name.chars().all(is_fit)) {
        return None;
    }
    let mut alias: String = name
        .chars()
        .map(|c| if is_fit(c) { c } else { '_' })
        .collect();
    if !begins_well {
        alias.insert(0, '_');
    }
    Some(alias)
}

/// A row.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// What its values are called.
    pub columns: Arc<Columns>,
    /// Its values, one for each column.
    pub values: Vec<Json>,
    /// Its number among the rows of the data, from 1.
    pub number: u64,
}

impl Row {
    /// The value of the column called `name`.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.values.get(self.columns.position(name)?)
    }

    /// The text of the value of `name`; `None` if there is no such column, or nothing in it.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Json::Null => None,
            Json::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_by_an_identifier_for_it() {
        let columns = Columns::new(["email", "First Name", "2nd", ""].map(str::to_owned)).unwrap();
        for (name, at) in [
            ("email", Some(0)),
            ("First Name", Some(1)),
            ("First_Name", Some(1)),
            ("_2nd", Some(2)),
            ("Email", None),
            ("", None),
        ] {
            assert_eq!(columns.position(name), at, "{name}");
        }
        let twice = Columns::new(["a", "b", "a"].map(str::to_owned));
        assert_eq!(twice.unwrap_err(), "a");
        let taken = Columns::new(["a b", "a_b"].map(str::to_owned)).unwrap();
        assert_eq!(
            taken.position("a_b"),
            Some(1),
            "a name goes before an alias"
        );
    }
}
