//! A connection whose work is done on the I/O runtime, and trying again when it was lost.

use super::address::Address;
use super::failure;
use crate::ConnectError;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

/// Attempts at what may be done twice: with the pauses between them about 13 s, in which a server restarts.
const ATTEMPTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What each connection is told. A decision must not be lost with the server's cache. A session that hangs inside a transaction must not hold the row of the
/// epoch, nor wait for it, for ever.
const SETTINGS: &str = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
    SET idle_in_transaction_session_timeout = '60s';
    SET lock_timeout = '90s'";

/// An open connection.
pub struct Session {
    client: Client,
    /// Where to.
    pub address: Address,
}

impl Session {
    /// Connects.
    pub async fn open(address: &Address, io: &Handle) -> Result<Session, ConnectError> {
        let opening = address.clone();
        // The client needs the I/O runtime's sockets and timers.
        io.spawn(async move { Session::connect(opening).await }).await.map_err(ConnectError::internal)?
    }

    async fn connect(address: Address) -> Result<Session, ConnectError> {
        let tls = address.tls()?;
        let connected = address.config().connect(tls).await;
        let (client, connection) = connected.map_err(|error| failure::connecting(&address, &error))?;
        // Ends when the client is dropped or the connection lost; whoever waits for an answer is told.
        tokio::spawn(connection);
        let session = Session { client, address };
        session.run("prepare the session", SETTINGS).await?;
        for statement in &session.address.init {
            session.run("run `connection_init_sql`", statement).await?;
        }
        Ok(session)
    }

    /// The client, for what is not here.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the connection is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.client.is_closed()
    }

    /// An error of this connection; `doing` continues "cannot".
    pub fn error(&self, doing: &str, error: &Error) -> ConnectError {
        failure::doing(&self.address, doing, error)
    }

    /// Runs statements that give nothing.
    pub async fn run(&self, doing: &str, statements: &str) -> Result<(), ConnectError> {
        self.client.batch_execute(statements).await.map_err(|error| self.error(doing, &error))
    }

    /// Rows of a query.
    pub async fn query(&self, doing: &str, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, ConnectError> {
        self.client.query(query, parameters).await.map_err(|error| self.error(doing, &error))
    }
}

/// A connection that is opened when it is needed, and again when it was lost.
pub struct Reconnecting {
    address: Address,
    io: Handle,
    session: Option<Session>,
}

impl Reconnecting {
    /// Connects later.
    pub fn new(address: Address, io: Handle) -> Reconnecting {
        Reconnecting { address, io, session: None }
    }

    /// Where to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The connection. Whoever uses it takes it, and puts it back when all went well: after a failure its transaction may be open.
    pub async fn take(&mut self) -> Result<Session, ConnectError> {
        match self.session.take().filter(|session| !session.is_lost()) {
            Some(session) => Ok(session),
            None => Session::open(&self.address, &self.io).await,
        }
    }

    /// Keeps a connection that is in order.
    pub fn put_back(&mut self, session: Session) {
        self.session = Some(session);
    }
}

/// Counts attempts at what may be done twice, and waits between them.
pub struct Retry {
    attempt: u32,
    pause: Duration,
}

impl Retry {
    /// None failed yet.
    pub fn new() -> Retry {
        Retry { attempt: 0, pause: FIRST_PAUSE }
    }

    /// An attempt has failed: returns after a pause if another is worth it, and the error if not.
    pub async fn after(&mut self, failed: ConnectError, address: &Address, io: &Handle) -> Result<(), ConnectError> {
        self.attempt += 1;
        if self.attempt == ATTEMPTS || !matches!(failed, ConnectError::External { .. }) {
            return Err(failed);
        }
        tracing::warn!(server = %address, attempt = self.attempt, error = %failed, "PostgreSQL is tried again");
        let pause = self.pause;
        self.pause *= 2;
        // The timer is the I/O runtime's.
        io.spawn(async move { tokio::time::sleep(pause).await }).await.map_err(ConnectError::internal)
    }
}
