//! Redis Cluster.

use std::time::Duration;

use super::commands::{ask, until};
use super::member::{self, Member};

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// Three masters, each with a replica that takes over within seconds of its death.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Member>,
}

impl Cluster {
    /// Starts one and waits until all of it is well.
    ///
    /// # Panics
    /// When no server can be found or started.
    pub async fn start() -> Self {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let mut nodes = Vec::new();
        for _ in 0..2 * MASTERS {
            nodes.push(member::start(&options, true).await);
        }
        let cluster = Self { nodes };
        cluster.form().await;
        cluster
    }

    async fn form(&self) {
        let (masters, replicas) = self.nodes.split_at(MASTERS);
        for (index, master) in masters.iter().enumerate() {
            let (first, last) = (index * SLOTS / MASTERS, (index + 1) * SLOTS / MASTERS - 1);
            let own = format!("CLUSTER ADDSLOTSRANGE {first} {last}\r\nCLUSTER SET-CONFIG-EPOCH {}", index + 1);
            until(master.port(), &own, &["+OK\r\n+OK\r\n"]).await;
        }
        for node in &self.nodes[1..] {
            let bus = node.recipe().bus().expect("a member of a cluster has one");
            until(self.nodes[0].port(), &format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port()), &["+OK"]).await;
        }
        let all = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        for node in &self.nodes {
            until(node.port(), "CLUSTER INFO", &[&all, "cluster_state:ok"]).await;
        }
        for (master, replica) in masters.iter().zip(replicas) {
            let id = ask(master.port(), "CLUSTER MYID").await.expect("an answer");
            let id = id.lines().nth(1).expect("an id");
            until(replica.port(), &format!("CLUSTER REPLICATE {id}"), &["+OK"]).await;
        }
        for replica in replicas {
            until(replica.port(), "INFO replication", &["master_link_status:up"]).await;
        }
        for node in &self.nodes {
            let what = "every node knows who replicates whom";
            crate::eventually(Duration::from_secs(60), what, async || {
                let nodes = ask(node.port(), "CLUSTER NODES").await?;
                if nodes.matches("slave").count() == replicas.len() { Ok(()) } else { Err(nodes) }
            })
            .await;
        }
    }

    /// Its address, by one node alone: the others are to be found out.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.nodes[0].port())
    }

    /// The ports of all nodes.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.nodes.iter().map(Member::port)
    }

    /// The port of the master that serves `key`, if one does.
    pub async fn master_of(&self, key: &str) -> Option<u16> {
        for port in self.ports() {
            // others answer who does
            if ask(port, &format!("EXISTS {key}")).await.is_ok_and(|answer| answer.starts_with(':')) {
                return Some(port);
            }
        }
        None
    }

    /// Kills the node at `port`.
    ///
    /// # Panics
    /// When there is none.
    pub async fn crash(&self, port: u16) {
        self.node(port).crash().await;
    }

    /// Starts the node at `port` again, without what it held.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start_again(&self, port: u16) {
        self.node(port).start_again().await;
    }

    fn node(&self, port: u16) -> &Member {
        self.nodes.iter().find(|node| node.port() == port).expect("a node of the cluster")
    }
}
