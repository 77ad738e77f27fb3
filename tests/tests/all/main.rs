//! Tests that need more than one crate; one binary, since linking is dear.

mod conformance;
