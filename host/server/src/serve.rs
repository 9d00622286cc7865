//! `pelton serve`: a host from its start to its end.

use crate::ServerError;
use crate::api::App;
use crate::host::{Host, HostOptions};
use crate::listen::{ListenOptions, Listening, listen};
use std::sync::Arc;
use tokio::sync::watch;

/// A host that listens.
pub struct Server {
    host: Arc<Host>,
    listening: Listening,
}

impl Server {
    /// Opens the data folder and listens. Nothing runs yet, and nobody is answered.
    pub async fn open(host: HostOptions, options: &ListenOptions) -> Result<Server, ServerError> {
        let host = Host::open(host)?;
        let listening = listen(options).await?;
        Ok(Server { host, listening })
    }

    /// Where it listens, for people.
    pub fn places(&self) -> Vec<String> {
        self.listening.places()
    }

    /// Names of the pipelines that it has.
    pub fn pipelines(&self) -> Vec<String> {
        self.host.pipelines().iter().map(|hosted| hosted.name.clone()).collect()
    }

    /// Runs until it is told to end: requests are answered, pipelines stopped with a last checkpoint.
    pub async fn run(mut self, end: impl Future<Output = ()>) {
        let (ending, ends) = watch::channel(false);
        let app = App::new(self.host.clone(), self.listening.take_access());
        let answering = tokio::spawn(self.listening.serve(app, ends));
        let host = self.host.clone();
        // Pipelines may take long to start; they can be stopped meanwhile.
        let beginning = tokio::spawn(async move { host.begin().await });
        end.await;
        beginning.abort();
        // Whoever looks can see how they stop.
        self.host.end().await;
        let _ = ending.send(true);
        let _ = answering.await;
    }
}
