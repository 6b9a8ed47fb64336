//! netagg-api
