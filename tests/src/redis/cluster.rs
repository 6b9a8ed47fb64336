//! A Redis Cluster for tests.

use std::time::Duration;

use super::commands::{ask, until};
use super::member::{self, Member};

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// Three masters, each with a replica. If a master dies, its replica takes over within seconds.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Member>,
}

impl Cluster {
    /// Starts a cluster, and waits until all its nodes are ready.
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
            let bus = node.recipe().bus().expect("a member of a cluster has a bus port");
            until(self.nodes[0].port(), &format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port()), &["+OK"]).await;
        }
        let all = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        for node in &self.nodes {
            until(node.port(), "CLUSTER INFO", &[&all, "cluster_state:ok"]).await;
        }
        for (master, replica) in masters.iter().zip(replicas) {
            let id = ask(master.port(), "CLUSTER MYID").await.expect("a response");
            let id = id.lines().nth(1).expect("an id");
            until(replica.port(), &format!("CLUSTER REPLICATE {id}"), &["+OK"]).await;
        }
        for replica in replicas {
            until(replica.port(), "INFO replication", &["master_link_status:up"]).await;
        }
        for node in &self.nodes {
            let condition = "every node knows the replicas of each master";
            crate::eventually(Duration::from_secs(60), condition, async || {
                let nodes = ask(node.port(), "CLUSTER NODES").await?;
                if nodes.matches("slave").count() == replicas.len() { Ok(()) } else { Err(nodes) }
            })
            .await;
        }
    }

    /// The address of the cluster. It names only one node, so clients have to discover the other nodes.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.nodes[0].port())
    }

    /// The ports of all nodes.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.nodes.iter().map(Member::port)
    }

    /// The port of the master that serves `key`, if there is such a master now.
    pub async fn master_of(&self, key: &str) -> Option<u16> {
        for port in self.ports() {
            // The other nodes respond with the address of this master.
            if ask(port, &format!("EXISTS {key}")).await.is_ok_and(|answer| answer.starts_with(':')) {
                return Some(port);
            }
        }
        None
    }

    /// Kills the node at `port`.
    ///
    /// # Panics
    /// When no node has this port.
    pub async fn crash(&self, port: u16) {
        self.node(port).crash().await;
    }

    /// Starts the node at `port` again, without its data.
    ///
    /// # Panics
    /// When no node has this port.
    pub async fn start_again(&self, port: u16) {
        self.node(port).start_again().await;
    }

    fn node(&self, port: u16) -> &Member {
        self.nodes.iter().find(|node| node.port() == port).expect("a node of the cluster")
    }
}
