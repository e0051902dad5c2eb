//! Pod: one running instance, as a registry has it. Leaves out how it runs: a pod of this kind is never started here
//! (Deployments are). Source: Kubernetes core/v1 `Pod`.

use crate::decode::wire;
use crate::kubernetes::ContainerPort;
use crate::syntax;

wire! {
    /// One running instance.
    pub struct Pod {
        /// Its containers, for the names of their ports.
        containers: Vec<PodContainer>, "containers";
        /// Containers that run first, or beside the others when they restart always.
        init_containers: Vec<PodContainer>, "initContainers";
        /// Its identity; absent: `default`.
        service_account_name: Option<String>, "serviceAccountName" => syntax::dns_name;
        /// The node that it is on.
        node_name: Option<String>, "nodeName";
        /// Its host name; absent: its name.
        hostname: Option<String>, "hostname" => syntax::dns_label;
        /// The service that its host name is below.
        subdomain: Option<String>, "subdomain" => syntax::dns_label;
        /// It shares the node's network.
        host_network: Option<bool>, "hostNetwork";
    }
    ignored "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy",
        "enableServiceLinks", "ephemeralContainers", "hostAliases", "hostIPC", "hostPID", "hostUsers",
        "hostnameOverride", "imagePullSecrets", "nodeSelector", "os", "overhead", "preemptionPolicy", "priority",
        "priorityClassName", "readinessGates", "resourceClaims", "resources", "restartPolicy", "runtimeClassName",
        "schedulerName", "schedulingGates", "securityContext", "serviceAccount", "setHostnameAsFQDN",
        "shareProcessNamespace", "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints",
        "volumes", "workloadRef";
}

wire! {
    /// A container of a pod.
    pub struct PodContainer {
        /// Name, unique in the pod.
        name: String, "name", required => syntax::dns_label;
        /// Ports that it listens on.
        ports: Vec<ContainerPort>, "ports";
        /// `Always` makes an init container one that stays.
        restart_policy: Option<String>, "restartPolicy";
    }
    ignored "args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe",
        "readinessProbe", "resizePolicy", "resources", "restartPolicyRules", "securityContext", "startupProbe",
        "stdin", "stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty", "volumeDevices",
        "volumeMounts", "workingDir";
}

wire! {
    /// A machine of the cluster. Only its name and the labels that say where it stands count.
    pub struct Node {}
    ignored "apiVersion", "kind", "metadata", "spec", "status";
}

impl Pod {
    /// The port of this name on one of its containers; the first counts.
    pub fn port(&self, name: &str) -> Option<u32> {
        let stay = self.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let ports = self.containers.iter().chain(stay).flat_map(|container| &container.ports);
        let is_tcp = |port: &&ContainerPort| port.protocol.as_deref().is_none_or(|p| p == "TCP");
        let named = ports.filter(is_tcp).find(|port| port.name.as_deref() == Some(name));
        named.map(|port| port.container_port)
    }
}
