//! netagg-kafka
