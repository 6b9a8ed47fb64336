//! netagg-redis
