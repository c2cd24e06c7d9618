//! The engine.
pub mod settings;
pub mod status;
