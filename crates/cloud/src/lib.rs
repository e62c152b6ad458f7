//! The Cloud port's adapters.
