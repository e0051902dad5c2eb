//! The secrets of contexts: those of the bootstrap, and what SDS brings, each by its name and where it comes from.
//!
//! A secret is in force when it is here: contexts look into its slot for each new handshake, and connections that are
//! there go on with what they began with. Source: Envoy's `SecretManagerImpl` and `SdsApi`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use meltemi_compile::program::{Cluster, Listener, Name};
use meltemi_compile::tls::{self, Secret, SecretRef};
use meltemi_compile::{FileOrigin, Origin, Rejection};
use meltemi_envoy::config::core::v3::data_source::Specifier;
use meltemi_envoy::extensions::transport_sockets::tls::v3 as proto;
use meltemi_envoy::{Any, type_url};
use meltemi_xds::Resource;
use tokio::time::Instant;

use super::references::{self, Need};
use super::store::{Store, Taken, unpack};
use super::table::{Entry, Loaded, Refused};
use crate::tls::{Environment, Secrets};

/// What a secret is found by; one without a source is the bootstrap's.
pub(super) type SecretKey = (Name, Option<Origin>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SecretTable {
    entries: BTreeMap<SecretKey, Entry<Secret>>,
    /// The files that dynamic ones name for their data.
    files: BTreeSet<(SecretKey, FileOrigin)>,
    slots: Arc<Secrets>,
}

impl SecretTable {
    /// Takes the slots that contexts look into, and fills them.
    pub(super) fn share(&mut self, slots: Arc<Secrets>) {
        self.slots = slots;
        for ((name, origin), entry) in &self.entries {
            let secret = entry.active.as_ref().map(|loaded| Arc::clone(&loaded.value));
            self.slots.set(name, origin.as_ref(), secret);
        }
    }

    fn put(&mut self, key: SecretKey, message: Any, version: &str, secret: Secret) -> bool {
        let entry = self.entries.entry(key.clone()).or_default();
        let secret = Arc::new(secret);
        let loaded = Loaded {
            message,
            version: version.to_owned(),
            updated: SystemTime::now(),
            value: Arc::clone(&secret),
            needs: Vec::new(),
            deadline: None,
        };
        let is_new = entry.active.replace(loaded).is_none();
        entry.refused = None;
        self.slots.set(&key.0, key.1.as_ref(), Some(secret));
        is_new
    }

    fn is_answered(&self, key: &SecretKey) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.active.is_some() || entry.refused.is_some())
    }
}

impl Store {
    /// Takes the secrets of the bootstrap.
    pub(super) fn load_static_secrets(&mut self, messages: &[proto::Secret]) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for message in messages {
            let key = (Name::from(message.name.as_str()), None);
            if self.secrets.entries.contains_key(&key) {
                rejections.push(Rejection::new(&*message.name, "name", "two static secrets have this name"));
            }
            match tls::secret_with(message, &Environment) {
                Ok(secret) => {
                    self.secrets.put(key.clone(), Any::pack(message), "", secret);
                    self.secrets.entries.entry(key).or_default().is_static = true;
                }
                Err(refused) => rejections.extend(refused),
            }
        }
        rejections
    }

    /// A secret whose data is in files is read again each time, since they may have changed.
    pub(super) fn take_secret(
        &mut self,
        resource: &Resource,
        origin: &Origin,
    ) -> Result<Taken, Vec<Rejection>> {
        let key = (Name::from(&*resource.name), Some(origin.clone()));
        let message: proto::Secret = unpack(resource)?;
        let known = self.secrets.entries.get_mut(&key).and_then(|entry| entry.active.as_mut());
        if let Some(known) =
            known.filter(|known| known.message == resource.body && data_files(&message).is_empty())
        {
            known.version.clone_from(&resource.version);
            return Ok(Taken::Same);
        }
        let secret = tls::secret_with(&message, &Environment)?;
        self.secrets.files.retain(|(of, _)| *of != key);
        let files = data_files(&message).into_iter().map(|file| (key.clone(), file));
        self.secrets.files.extend(files);
        Ok(Taken::of(self.secrets.put(key, resource.body.clone(), &resource.version, secret)))
    }

    /// Something was moved onto the files of a secret. What cannot be used does not replace what is there: the
    /// certificate may have been moved, and its key not yet.
    pub(super) fn read_again(&mut self, key: &SecretKey) {
        let known = self.secrets.entries.get(key).and_then(|entry| entry.active.as_ref());
        let Some((body, version)) = known.map(|known| (known.message.clone(), known.version.clone())) else {
            return;
        };
        let Ok(message) = body.unpack::<proto::Secret>() else { return };
        match tls::secret_with(&message, &Environment) {
            Ok(secret) => drop(self.secrets.put(key.clone(), body, &version, secret)),
            Err(refused) => {
                let reason = refused.first().map(ToString::to_string);
                tracing::warn!(reason, "files of a secret cannot be used");
                self.by_name.of(type_url::SECRET, &key.0).unreadable += 1;
            }
        }
    }

    /// The files that secrets name for their data.
    pub(super) fn data_files(&self) -> BTreeSet<(SecretKey, FileOrigin)> {
        self.secrets.files.clone()
    }

    pub(super) fn refuse_secret(&mut self, name: Name, origin: &Origin, refused: Refused) {
        self.secrets.entries.entry((name, Some(origin.clone()))).or_default().refused = Some(refused);
    }

    /// What a listener waits for of secrets.
    ///
    /// # Errors
    /// If the bootstrap has no secret of a name, or there is no file where it should come from.
    pub(super) fn secrets_of_listener(
        &self,
        listener: &Listener,
        now: Instant,
    ) -> Result<Vec<Need>, Vec<Rejection>> {
        let contexts = listener.chains.iter().filter_map(|chain| chain.tls.as_ref());
        self.secret_needs(&listener.name, contexts.flat_map(|tls| tls.secrets()), now)
    }

    /// What a cluster waits for of secrets, whichever of its sockets a host gets.
    ///
    /// # Errors
    /// As for a listener.
    pub(super) fn secrets_of_cluster(
        &self,
        cluster: &Cluster,
        now: Instant,
    ) -> Result<Vec<Need>, Vec<Rejection>> {
        let contexts = cluster.transport_sockets.all().filter_map(|socket| socket.tls());
        self.secret_needs(&cluster.name, contexts.flat_map(|tls| tls.secrets()), now)
    }

    fn secret_needs<'r>(
        &self,
        resource: &str,
        secrets: impl Iterator<Item = &'r SecretRef>,
        now: Instant,
    ) -> Result<Vec<Need>, Vec<Rejection>> {
        let mut needs = Vec::new();
        for SecretRef { name, origin, initial_fetch_timeout } in secrets {
            let Some(origin) = origin.clone() else {
                if self.secrets.entries.contains_key(&(name.clone(), None)) {
                    continue;
                }
                let reason = format!("Unknown static secret: {name}");
                return Err(vec![Rejection::new(resource, "transport_socket", reason)]);
            };
            references::check_file(resource, &origin)?;
            let until = initial_fetch_timeout.map(|wait| now + wait);
            needs.push(Need { kind: type_url::SECRET, name: name.clone(), origin, until });
        }
        Ok(needs)
    }

    /// Whether there is a secret, or nothing to wait for any more.
    pub(super) fn has_secret(&self, need: &Need) -> bool {
        let key = (need.name.clone(), Some(need.origin.clone()));
        self.secrets.is_answered(&key) || self.by_name.is_given_up(need.kind, &need.name)
    }

    /// Forgets what nothing refers to any more.
    pub(super) fn forget_secrets(&mut self) {
        let wanted = self.wanted(type_url::SECRET);
        let slots = Arc::clone(&self.secrets.slots);
        self.secrets.entries.retain(|(name, origin), _| {
            let Some(from) = origin else { return true };
            let stays = wanted.contains(&(name.clone(), from.clone()));
            if !stays {
                slots.set(name, origin.as_ref(), None);
            }
            stays
        });
        let Store { secrets: SecretTable { entries, files, .. }, .. } = self;
        files.retain(|(key, _)| entries.contains_key(key));
        let names = wanted.into_iter().map(|(name, _)| name).collect();
        self.by_name.retain(type_url::SECRET, &names);
    }

    /// The secrets of the bootstrap, or those that came.
    pub fn secrets(&self, is_static: bool) -> impl Iterator<Item = (&Name, &Loaded<Secret>)> {
        let entries =
            self.secrets.entries.iter().filter(move |((_, origin), _)| origin.is_none() == is_static);
        entries.filter_map(|((name, _), entry)| Some((name, entry.active.as_ref()?)))
    }

    /// What a context gets for a secret that it names, if it is there.
    pub fn secret(&self, secret: &SecretRef) -> Option<&Arc<Secret>> {
        let key = (secret.name.clone(), secret.origin.clone());
        self.secrets.entries.get(&key)?.active.as_ref().map(|loaded| &loaded.value)
    }

    /// Secrets that are wanted and did not come.
    pub fn missing_secrets(&self) -> impl Iterator<Item = Name> {
        let wanted = self.wanted(type_url::SECRET).into_iter().map(|(name, origin)| (name, Some(origin)));
        wanted
            .filter(|key| self.secrets.entries.get(key).is_none_or(|entry| entry.active.is_none()))
            .map(|(name, _)| name)
    }
}

/// The files that a secret names for its data.
fn data_files(message: &proto::Secret) -> Vec<FileOrigin> {
    use proto::secret::Type;
    let (sources, directory) = match &message.r#type {
        Some(Type::TlsCertificate(certificate)) => {
            ([&certificate.certificate_chain, &certificate.private_key], &certificate.watched_directory)
        }
        Some(Type::ValidationContext(context)) => {
            ([&context.trusted_ca, &context.crl], &context.watched_directory)
        }
        Some(Type::SessionTicketKeys(_) | Type::GenericSecret(_)) | None => return Vec::new(),
    };
    let watched_directory = directory.as_ref().map(|directory| Box::from(directory.path.as_str()));
    let specifiers = sources.into_iter().flatten().filter_map(|source| source.specifier.as_ref());
    let files = specifiers.filter_map(|specifier| match specifier {
        Specifier::Filename(path) => {
            Some(FileOrigin { path: path.as_str().into(), watched_directory: watched_directory.clone() })
        }
        _ => None,
    });
    files.collect()
}

#[cfg(test)]
mod tests;
