//! The findings of `meltemi up` about running objects on this machine, `MEL04xx`. The catalogue of the codes that
//! hold everywhere is in `api`.

use meltemi_api::{Code, Severity};

pub(crate) static NO_COMMAND: Code = Code {
    id: "MEL0401",
    severity: Severity::Error,
    title: "the container has no command",
    explanation: "Images are not run on one machine; the container's `command` is. The Deployment is not started.",
};
pub(crate) static SEVERAL_CONTAINERS: Code = Code {
    id: "MEL0402",
    severity: Severity::Error,
    title: "the pod has several containers",
    explanation: "One program runs per replica on one machine. The Deployment is not started.",
};
pub(crate) static TOO_MANY_REPLICAS: Code = Code {
    id: "MEL0403",
    severity: Severity::Error,
    title: "the loopback block is full",
    explanation: "Every replica and gateway has an address of its own in one /24 block. Those beyond it are not started.",
};
pub(crate) static UNKNOWN_PROBE_PORT: Code = Code {
    id: "MEL0404",
    severity: Severity::Error,
    title: "the probe names a port that the container does not have",
    explanation: "The Deployment is not started, because it could never become ready.",
};
pub(crate) static UNSUPPORTED_PROBE: Code = Code {
    id: "MEL0405",
    severity: Severity::Error,
    title: "the probe cannot be run on one machine",
    explanation: "The Deployment is not started, because its health could not be told.",
};
pub(crate) static GATEWAY_PORT_SHARED: Code = Code {
    id: "MEL0406",
    severity: Severity::Error,
    title: "two gateways want the same address and port",
    explanation: "Gateways with different selectors are different processes; one socket cannot belong to both.",
};
pub(crate) static GATEWAY_PORT_IN_USE: Code = Code {
    id: "MEL0407",
    severity: Severity::Error,
    title: "the gateway's port is in use",
    explanation: "Another process of this machine, perhaps another mesh, listens on it.",
};
pub(crate) static GATEWAY_PORT_DENIED: Code = Code {
    id: "MEL0408",
    severity: Severity::Error,
    title: "the gateway's port needs a right that this user lacks",
    explanation: "Ports below 1024 belong to root unless the machine says otherwise.",
};
pub(crate) static GATEWAY_ADDRESS: Code = Code {
    id: "MEL0409",
    severity: Severity::Error,
    title: "the gateway cannot listen on the address",
    explanation: "The address is not one of this machine.",
};
pub(crate) static RESERVED_PORT: Code = Code {
    id: "MEL0411",
    severity: Severity::Error,
    title: "the port belongs to the sidecar",
    explanation: "15000, 15002, 15021 and 15090 are the sidecar's own. The Deployment is not started.",
};
pub(crate) static SIDECAR_PORT_DENIED: Code = Code {
    id: "MEL0412",
    severity: Severity::Error,
    title: "the container's port needs a right that this user lacks",
    explanation: "The sidecar listens on it. Ports below 1024 belong to root unless the machine says otherwise.",
};
pub(crate) static IMAGE_IGNORED: Code = Code {
    id: "MEL0410",
    severity: Severity::Info,
    title: "the image is not used on one machine",
    explanation: "The container's `command` runs as a local process instead.",
};
