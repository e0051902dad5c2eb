//! Kinds that make pods and are not run here: only the labels of their pods count. Source: Kubernetes apps/v1, batch/v1.

use crate::decode::wire;
use crate::kubernetes::{LabelSelector, PodTemplateMeta};

wire! {
    /// The pods of one of these kinds, as far as they count.
    pub struct LabelledTemplate {
        /// Labels and annotations of the pods.
        metadata: PodTemplateMeta, "metadata";
    }
    ignored "spec";
}

wire! {
    /// Pods with names and storage of their own.
    pub struct StatefulSet {
        /// How many; absent: 1.
        replicas: Option<u32>, "replicas";
        /// The headless service that the pods' names are below.
        service_name: Option<String>, "serviceName";
        /// Labels its pods carry.
        selector: LabelSelector, "selector";
        /// The pods.
        template: LabelledTemplate, "template", required;
    }
    ignored "minReadySeconds", "ordinals", "persistentVolumeClaimRetentionPolicy", "podManagementPolicy",
        "revisionHistoryLimit", "updateStrategy", "volumeClaimTemplates";
}

wire! {
    /// A pod on every node.
    pub struct DaemonSet {
        /// Labels its pods carry.
        selector: LabelSelector, "selector";
        /// The pods.
        template: LabelledTemplate, "template", required;
    }
    ignored "minReadySeconds", "revisionHistoryLimit", "updateStrategy";
}

wire! {
    /// Pods of one version of a Deployment.
    pub struct ReplicaSet {
        /// How many; absent: 1.
        replicas: Option<u32>, "replicas";
        /// Labels its pods carry.
        selector: LabelSelector, "selector";
        /// The pods.
        template: LabelledTemplate, "template";
    }
    ignored "minReadySeconds";
}

wire! {
    /// Pods that end by themselves.
    pub struct Job {
        /// The pods.
        template: LabelledTemplate, "template", required;
    }
    ignored "activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex", "completionMode", "completions",
        "managedBy", "manualSelector", "maxFailedIndexes", "parallelism", "podFailurePolicy", "podReplacementPolicy",
        "selector", "successPolicy", "suspend", "ttlSecondsAfterFinished";
}
