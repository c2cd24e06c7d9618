//! The engine.
pub mod settings;
