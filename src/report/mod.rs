//! Results for people and programs: the report (a row per recipient) and the summary (one screen).

pub mod rows;
pub mod summary;
