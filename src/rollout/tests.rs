//! The law, row by row.
