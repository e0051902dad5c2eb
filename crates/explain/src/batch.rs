//! Questions and answers as JSON, one per line: for tests and CI.

use meltemi_api::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::call::Call;
use crate::mesh::Mesh;
use crate::proxy::ProxySpec;
use crate::verdict::{Failure, Verdict};

/// What a question calls its configuration in origins.
const FILE: &str = "config";

/// One line in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// Comes back with the answer.
    #[serde(default)]
    id: Json,
    /// YAML documents, Istio's and Kubernetes' mixed.
    #[serde(default)]
    config: String,
    /// MeshConfig.
    #[serde(default)]
    mesh_config: Option<Json>,
    /// The proxy that is asked.
    #[serde(default)]
    proxy: ProxySpec,
    /// The call.
    #[serde(default)]
    call: Call,
}

/// One line out.
#[derive(Debug, Serialize)]
struct Answer {
    id: Json,
    #[serde(flatten)]
    verdict: Verdict,
    diagnostics: Vec<Diagnostic>,
}

/// Answers one line with one line, whatever it holds. Questions about the same configuration that follow each other
/// share its translation.
#[derive(Debug, Default)]
pub struct Batch {
    last: Option<Prepared>,
}

#[derive(Debug)]
struct Prepared {
    config: String,
    mesh_config: Option<Json>,
    mesh: Mesh,
}

impl Batch {
    /// The answer to a line, without the line end.
    pub fn answer(&mut self, line: &str) -> String {
        let answer = match serde_json::from_str::<Question>(line) {
            Ok(question) => self.answer_question(question),
            Err(error) => {
                let id = serde_json::from_str::<Json>(line).map_or(Json::Null, |json| json["id"].clone());
                invalid(id, format!("the line is no question: {error}"))
            }
        };
        serde_json::to_string(&answer).expect("invariant: an answer is plain data")
    }

    fn answer_question(&mut self, question: Question) -> Answer {
        let Question { id, config, mesh_config, proxy, call } = question;
        let mesh = self.mesh(config, mesh_config);
        let mut diagnostics = mesh.diagnostics.clone();
        let verdict = match mesh.proxy(&proxy) {
            Ok(proxy) => {
                diagnostics.extend(proxy.resources.left_out.iter().cloned());
                proxy.explain(&call).verdict
            }
            Err(wrong) => Verdict::default().fails(Failure::InvalidCall, wrong),
        };
        Answer { id, verdict, diagnostics }
    }

    fn mesh(&mut self, config: String, mesh_config: Option<Json>) -> &Mesh {
        let is_same = self.last.as_ref().is_some_and(|p| p.config == config && p.mesh_config == mesh_config);
        if !is_same {
            self.last = None;
        }
        let prepare = || {
            let mesh = Mesh::of_text(&config, FILE, mesh_config.as_ref());
            Prepared { config, mesh_config, mesh }
        };
        &self.last.get_or_insert_with(prepare).mesh
    }
}

fn invalid(id: Json, detail: String) -> Answer {
    let verdict = Verdict::default().fails(Failure::InvalidCall, detail);
    Answer { id, verdict, diagnostics: Vec::new() }
}
