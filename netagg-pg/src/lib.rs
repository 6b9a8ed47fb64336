//! netagg-pg
