//! Every endpoint of the API in one table: the routes, the rights and the OpenAPI document are made of it.

use crate::access::Role;

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// With parameters in braces.
    pub path: &'static str,
    /// Who may use it; `None`: anybody.
    pub role: Option<Role>,
    /// What it does.
    pub operation: Operation,
    /// The same for people, in a few words.
    pub summary: &'static str,
    /// More of it.
    pub description: &'static str,
    /// Parameters after `?`: name, what it is.
    pub query: &'static [(&'static str, &'static str)],
    /// What is sent: nothing, a schema of the OpenAPI document, or a component.
    pub body: Body,
    /// What comes back.
    pub answer: Answer,
}

/// What a request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// JSON of this schema; may be left out.
    Optional(&'static str),
    /// JSON of this schema.
    Json(&'static str),
    /// A WebAssembly component.
    Component,
}

/// What an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// JSON of this schema.
    Json(&'static str),
    /// A list of this schema.
    List(&'static str),
    /// Text of this type.
    Text(&'static str),
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Health,
    Readiness,
    Metrics,
    OpenApi,
    Host,
    List,
    Deploy,
    Status,
    Remove,
    Logs,
    History,
    Version,
    Graph,
    Pause,
    Resume,
    Drain,
    Stop,
    Savepoint,
    Rollback,
    Swaps,
    Swap,
    SwapBack,
    Candidate,
    Plugins,
    Upload,
    Sign,
    Audit,
}

impl Operation {
    /// As it is called in the audit log and the OpenAPI document.
    pub fn name(self) -> String {
        let name = format!("{self:?}");
        name[..1].to_lowercase() + &name[1..]
    }
}

impl Endpoint {
    /// Whether it changes anything.
    pub fn changes(&self) -> bool {
        self.method != "GET"
    }

    /// Names in braces.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
    }
}

const NO_QUERY: &[(&str, &str)] = &[];
const VIEWER: Option<Role> = Some(Role::Viewer);
const OPERATOR: Option<Role> = Some(Role::Operator);
const ADMIN: Option<Role> = Some(Role::Admin);

/// A question.
const fn get(path: &'static str, role: Option<Role>, operation: Operation, answer: Answer, summary: &'static str) -> Endpoint {
    Endpoint { method: "GET", path, role, operation, summary, description: "", query: NO_QUERY, body: Body::None, answer }
}

/// A change.
const fn post(path: &'static str, role: Option<Role>, operation: Operation, body: Body, answer: Answer, summary: &'static str) -> Endpoint {
    Endpoint { method: "POST", path, role, operation, summary, description: "", query: NO_QUERY, body, answer }
}

/// All of them.
pub static ENDPOINTS: [Endpoint; 27] = [
    get("/healthz", None, Operation::Health, Answer::Text("text/plain"), "The process answers"),
    Endpoint {
        description: "503 while pipelines are being started, or stopped at the end.",
        ..get("/readyz", None, Operation::Readiness, Answer::Text("text/plain"), "Everything that is to run has been started")
    },
    get("/metrics", VIEWER, Operation::Metrics, Answer::Text("text/plain; version=0.0.4"), "Figures for Prometheus"),
    get("/openapi.json", VIEWER, Operation::OpenApi, Answer::Json("OpenApi"), "This document"),
    get("/v1/host", VIEWER, Operation::Host, Answer::Json("Host"), "The host, and who you are to it"),
    get("/v1/pipelines", VIEWER, Operation::List, Answer::List("Summary"), "All pipelines"),
    Endpoint {
        description: "Checks the pipeline, compares it with the version that is to run, and keeps it as a new version. Where only plugins, their configs \
                      and expressions change, they are swapped while it runs; else it is started from the last checkpoint. With `dry_run` only the \
                      comparison is given. If the new version does not take over, the one before it goes on.",
        ..post("/v1/pipelines", ADMIN, Operation::Deploy, Body::Json("Deploy"), Answer::Json("Deployed"), "Deploy a pipeline")
    },
    get("/v1/pipelines/{name}", VIEWER, Operation::Status, Answer::Json("Status"), "What a pipeline is doing"),
    Endpoint {
        method: "DELETE",
        description: "Its versions, its state and its log are removed. It must not run.",
        ..post("/v1/pipelines/{name}", ADMIN, Operation::Remove, Body::None, Answer::Json("Done"), "Forget a pipeline")
    },
    Endpoint {
        query: &[
            ("after", "Only entries after this number."),
            ("limit", "So many entries at most (default 200, at most 5000)."),
            ("wait", "Seconds to wait for an entry if there is none (at most 30)."),
        ],
        description: "Without `after` the last entries. With `after` and `wait` it waits for the next one, so that a log can be followed.",
        ..get("/v1/pipelines/{name}/logs", VIEWER, Operation::Logs, Answer::List("LogEntry"), "What a pipeline logs")
    },
    get("/v1/pipelines/{name}/history", VIEWER, Operation::History, Answer::List("HistoryEntry"), "All versions of a pipeline"),
    get("/v1/pipelines/{name}/versions/{version}", OPERATOR, Operation::Version, Answer::Json("Version"), "A version with its text"),
    get("/v1/pipelines/{name}/graph", VIEWER, Operation::Graph, Answer::Text("image/svg+xml"), "The plan of a pipeline that runs"),
    Endpoint {
        description: "It takes a last checkpoint and stands still until it is resumed, also over a restart of the host.",
        ..post(
            "/v1/pipelines/{name}/pause",
            OPERATOR,
            Operation::Pause,
            Body::Optional("Empty"),
            Answer::Json("Summary"),
            "Pause a pipeline",
        )
    },
    post(
        "/v1/pipelines/{name}/resume",
        OPERATOR,
        Operation::Resume,
        Body::Optional("Empty"),
        Answer::Json("Summary"),
        "Go on from the last checkpoint",
    ),
    Endpoint {
        description: "The watermark moves to the end, so that every window fires; the pipeline has ended then.",
        ..post(
            "/v1/pipelines/{name}/drain",
            OPERATOR,
            Operation::Drain,
            Body::Optional("Empty"),
            Answer::Json("Summary"),
            "Drain a pipeline",
        )
    },
    Endpoint {
        description: "It takes a last checkpoint. Open windows stay open.",
        ..post("/v1/pipelines/{name}/stop", OPERATOR, Operation::Stop, Body::Optional("Stop"), Answer::Json("Stopped"), "Stop a pipeline")
    },
    Endpoint {
        description: "`place` is a name below the pipeline's own folder; an admin may also give a path or a URL.",
        ..post(
            "/v1/pipelines/{name}/savepoint",
            OPERATOR,
            Operation::Savepoint,
            Body::Optional("Savepoint"),
            Answer::Json("SavepointTaken"),
            "Copy the state as of now",
        )
    },
    Endpoint {
        description: "The version comes back as a new one; without `version` the one before the current. State is never rewound.",
        ..post(
            "/v1/pipelines/{name}/rollback",
            OPERATOR,
            Operation::Rollback,
            Body::Optional("Rollback"),
            Answer::Json("Deployed"),
            "Return to a version",
        )
    },
    get("/v1/pipelines/{name}/swaps", VIEWER, Operation::Swaps, Answer::List("Made"), "Swaps that were made of a pipeline"),
    Endpoint {
        description: "Transforms become other versions of themselves while the pipeline runs, at one exact cut; that makes a version of the pipeline. \
                      Plugins are named by digests of components that the host has. With `dry_run` the new versions are checked and tried.",
        ..post("/v1/pipelines/{name}/swaps", ADMIN, Operation::Swap, Body::Json("Swap"), Answer::Json("Swapped"), "Swap transforms")
    },
    Endpoint {
        description: "A swap to what the transform was before; it goes forward like any other.",
        ..post(
            "/v1/pipelines/{name}/swaps/back",
            OPERATOR,
            Operation::SwapBack,
            Body::Json("SwapBack"),
            Answer::Json("Swapped"),
            "Make a transform what it was before",
        )
    },
    Endpoint {
        description: "A canary takes the rows of some keys, a shadow sees all rows and is compared. It goes when it is worse than is allowed, and at the end; \
                      with `promote` it is swapped in then. The answer comes at the end.",
        ..post(
            "/v1/pipelines/{name}/candidates",
            ADMIN,
            Operation::Candidate,
            Body::Json("Candidate"),
            Answer::Json("CandidateSeen"),
            "Let a candidate run beside transforms",
        )
    },
    get("/v1/plugins", VIEWER, Operation::Plugins, Answer::List("Plugin"), "Plugins that the host has"),
    Endpoint {
        method: "PUT",
        description: "The body is the component, with the content type `application/wasm`; it must have the digest in the path.",
        ..post("/v1/plugins/{digest}", ADMIN, Operation::Upload, Body::Component, Answer::Json("Plugin"), "Send a plugin")
    },
    Endpoint {
        method: "PUT",
        description: "They are added to those that it has; a host with a trust policy judges them whenever the plugin is loaded. They may be sent before it.",
        ..post(
            "/v1/plugins/{digest}/signatures",
            ADMIN,
            Operation::Sign,
            Body::Json("Signatures"),
            Answer::Json("Signed"),
            "Send signatures of a plugin",
        )
    },
    Endpoint {
        query: &[("limit", "So many entries at most (default 200, at most 5000).")],
        ..get("/v1/audit", ADMIN, Operation::Audit, Answer::List("AuditEntry"), "The last entries of the audit log")
    },
];
