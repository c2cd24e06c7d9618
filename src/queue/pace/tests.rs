//! Tests of the pace.
