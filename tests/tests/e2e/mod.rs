//! The built programs against real services, also killed, cut off and misconfigured on purpose.

mod abandoned;
mod administration;
mod adversary;
mod audit;
mod backup;
mod bad_input;
mod completeness;
mod configuration;
mod conflicts;
mod crashes;
mod dead_letters;
mod demo;
mod description;
mod encryption;
mod import;
mod installation;
mod kills;
mod large_messages;
mod ops;
mod outages;
mod output;
mod pipeline;
mod protection;
mod refusals;
mod resources;
mod retention;
