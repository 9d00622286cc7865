//! An object store: S3 and what is compatible with it, Google Cloud Storage, Azure Blob Storage.
//!
//! A name is won by a conditional write (`If-None-Match: *`); listings and reads after writes are consistent in all three.

use super::{Created, Listed, NewFile, Storage};
use crate::durable::StoreError;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a part of a large file: stores want at least 5 MiB, and at most 10,000 parts; this allows for 80 GiB.
const PART_BYTES: usize = 8 << 20;

/// See the module.
#[derive(Clone)]
pub struct RemoteStore {
    store: Arc<dyn ObjectStore>,
    /// The folder within the store.
    root: Path,
    /// For messages.
    url: String,
}

impl RemoteStore {
    /// The storage below `root` of a store; `url` is what messages call it.
    pub fn new(store: Arc<dyn ObjectStore>, root: Path, url: impl Into<String>) -> RemoteStore {
        RemoteStore { store, root, url: url.into().trim_end_matches('/').to_string() }
    }

    /// The storage that a URL names; credentials come from the environment, in each cloud's own variables.
    pub fn from_url(url: &str) -> Result<RemoteStore, StoreError> {
        let wrong =
            |message: String| StoreError::user(message, "write a path, `s3://BUCKET/PATH`, `gs://BUCKET/PATH` or `az://CONTAINER/PATH`");
        let parsed = url::Url::parse(url).map_err(|error| wrong(format!("{url} is not a URL: {error}")))?;
        let (_, root) = object_store::ObjectStoreScheme::parse(&parsed).map_err(|error| wrong(format!("{url}: {error}")))?;
        let store = cloud(&parsed).map_err(|error| wrong(format!("{url}: {error}")))?;
        Ok(RemoteStore::new(store, root, url))
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.root.clone(), |path, part| path.join(part))
    }

    fn failed(&self, doing: &str, name: &str, error: &Error) -> StoreError {
        let message = format!("cannot {doing} {}: {error}", self.describe(name));
        match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                StoreError::user(message, "give pelton's credentials leave to read, write, list and delete there")
            }
            Error::NotImplemented { .. } | Error::NotSupported { .. } => {
                StoreError::user(message, "use a store that has conditional writes")
            }
            _ => StoreError::external(message),
        }
    }

    /// A small object, if it is not there.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let options = PutMode::Create.into();
        match self.store.put_opts(&self.path(name), PutPayload::from_bytes(bytes.clone()), options).await {
            Ok(_) => Ok(Created::Yes),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => match self.get(name).await? {
                Some(found) if found == bytes => Ok(Created::Yes),
                _ => Ok(Created::Exists),
            },
            Err(error) => Err(self.failed("create", name, &error)),
        }
    }
}

/// The client for a URL.
#[cfg(feature = "cloud")]
fn cloud(url: &url::Url) -> Result<Arc<dyn ObjectStore>, String> {
    let built: Result<Arc<dyn ObjectStore>, Error> = match url.scheme() {
        "s3" | "s3a" => object_store::aws::AmazonS3Builder::from_env().with_url(url.as_str()).build().map(|store| Arc::new(store) as _),
        "gs" => object_store::gcp::GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).build().map(|store| Arc::new(store) as _),
        "az" | "abfs" | "abfss" => {
            object_store::azure::MicrosoftAzureBuilder::from_env().with_url(url.as_str()).build().map(|store| Arc::new(store) as _)
        }
        scheme => return Err(format!("this build of pelton does not know `{scheme}://`")),
    };
    built.map_err(|error| error.to_string())
}

#[cfg(not(feature = "cloud"))]
fn cloud(url: &url::Url) -> Result<Arc<dyn ObjectStore>, String> {
    Err(format!("this build of pelton does not know `{}://`; build it with `--features cloud`", url.scheme()))
}

/// A file that is uploaded in parts, or in one piece if it stays small.
struct Upload {
    store: RemoteStore,
    name: String,
    pending: BytesMut,
    parts: Option<Box<dyn MultipartUpload>>,
}

impl Upload {
    async fn send(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                let begun = self.store.store.put_multipart(&self.store.path(&self.name)).await;
                none.insert(begun.map_err(|error| self.store.failed("create", &self.name, &error))?)
            }
        };
        parts.put_part(PutPayload::from_bytes(bytes)).await.map_err(|error| self.store.failed("write", &self.name, &error))
    }
}

#[async_trait]
impl NewFile for Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.pending.extend_from_slice(&bytes);
        while self.pending.len() >= PART_BYTES {
            let part = self.pending.split_to(PART_BYTES).freeze();
            self.send(part).await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Created, StoreError> {
        let last = self.pending.split().freeze();
        if self.parts.is_none() {
            return self.store.put(&self.name, last).await;
        }
        // No store has a condition on the end of such an upload. Names of large files carry their generation, which has one writer.
        match self.store.store.head(&self.store.path(&self.name)).await {
            Err(Error::NotFound { .. }) => {}
            Ok(_) => return Ok(Created::Exists),
            Err(error) => return Err(self.store.failed("look for", &self.name, &error)),
        }
        if !last.is_empty() {
            self.send(last).await?;
        }
        let mut parts = self.parts.take().ok_or_else(|| StoreError::internal("an upload without parts"))?;
        if let Err(error) = parts.complete().await {
            // Nobody would finish it later. Where it was finished and the answer was lost, there is nothing to give up.
            let _ = parts.abort().await;
            return Err(self.store.failed("finish", &self.name, &error));
        }
        Ok(Created::Yes)
    }
}

impl Drop for Upload {
    /// Parts that nobody will finish cost their room until they are given up.
    fn drop(&mut self) {
        let (Some(mut parts), Ok(io)) = (self.parts.take(), tokio::runtime::Handle::try_current()) else { return };
        io.spawn(async move {
            // Where that fails it is left to the rules of the bucket.
            let _ = parts.abort().await;
        });
    }
}

#[async_trait]
impl Storage for RemoteStore {
    fn describe(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.put(name, bytes).await
    }

    async fn create(&self, name: &str) -> Result<Box<dyn NewFile>, StoreError> {
        Ok(Box::new(Upload { store: self.clone(), name: name.to_string(), pending: BytesMut::new(), parts: None }))
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        let read = async { self.store.get(&self.path(name)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", name, &error)),
        }
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        match self.store.get_range(&self.path(name), range.clone()).await {
            Ok(bytes) => Ok(bytes),
            Err(Error::NotFound { .. }) => Err(StoreError::damaged(self.describe(name), "it does not exist")),
            Err(error) => {
                // A range that begins beyond the end is an error in some stores.
                let length = self.store.head(&self.path(name)).await.map(|meta| meta.size);
                if length.is_ok_and(|length| length <= range.start) { Ok(Bytes::new()) } else { Err(self.failed("read", name, &error)) }
            }
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let listed = self.store.list_with_delimiter(Some(&self.path(folder))).await.map_err(|error| self.failed("list", folder, &error))?;
        let name = |location: &Path| {
            let last = location.filename().unwrap_or_default();
            if folder.is_empty() { last.to_string() } else { format!("{folder}/{last}") }
        };
        let mut found: Vec<Listed> = listed.objects.iter().map(|meta| Listed { name: name(&meta.location), bytes: meta.size }).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn delete(&self, names: &[String]) -> Result<(), StoreError> {
        let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
        let deleted = self.store.delete_stream(futures::stream::iter(paths).boxed());
        let missing_is_fine = deleted.filter_map(async |result| match result {
            Err(Error::NotFound { .. }) => None,
            result => Some(result),
        });
        missing_is_fine.try_for_each(async |_| Ok(())).await.map_err(|error| self.failed("delete from", "", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use object_store::{PutResult, UploadPart};
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Counts how often it is given up.
    #[derive(Debug)]
    struct Parts(Arc<AtomicUsize>);

    #[async_trait]
    impl MultipartUpload for Parts {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            Box::pin(async { Ok(()) })
        }

        async fn complete(&mut self) -> object_store::Result<PutResult> {
            Err(Error::NotImplemented { operation: "complete".into(), implementer: "a test".into() })
        }

        async fn abort(&mut self) -> object_store::Result<()> {
            self.0.fetch_add(1, Relaxed);
            Ok(())
        }
    }

    #[test]
    fn an_upload_that_is_not_finished_is_given_up() {
        let io = tokio::runtime::Builder::new_current_thread().build().expect("starts");
        let given_up = Arc::new(AtomicUsize::new(0));
        let store = RemoteStore::new(Arc::new(InMemory::new()), Path::from("p"), "memory://p");
        let upload = |parts: Option<Parts>| {
            let parts = parts.map(|parts| Box::new(parts) as Box<dyn MultipartUpload>);
            Box::new(Upload { store: store.clone(), name: "segments/1".into(), pending: BytesMut::new(), parts })
        };
        io.block_on(async {
            drop(upload(Some(Parts(given_up.clone()))));
            tokio::task::yield_now().await;
            assert_eq!(given_up.load(Relaxed), 1);
            assert!(upload(Some(Parts(given_up.clone()))).finish().await.is_err());
            tokio::task::yield_now().await;
            assert_eq!(given_up.load(Relaxed), 2);
            drop(upload(None));
        });
    }
}
