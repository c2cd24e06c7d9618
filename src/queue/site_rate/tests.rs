//! Tests of the rate of a site.
