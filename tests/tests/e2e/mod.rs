//! The built programs against real services, also killed, cut off and misconfigured on purpose.

mod bad_input;
mod configuration;
mod demo;
mod installation;
mod large_messages;
mod outages;
mod pipeline;
