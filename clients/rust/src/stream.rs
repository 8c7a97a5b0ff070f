//! The stream of a session. Dropping it cancels it.

use std::time::Instant;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Client, Error,
    v1::{
        SessionAttach, SessionAttached, SessionRequest, SessionResponse,
        session_request::Message as Asked, session_response::Message as Answer,
    },
};

pub(crate) struct Stream {
    outbox: mpsc::Sender<SessionRequest>,
    answers: Streaming<SessionResponse>,
}

impl Stream {
    /// Attach on a new stream; answers also when the attach was sent.
    pub(crate) async fn open(
        client: &Client,
        attach: SessionAttach,
    ) -> Result<(Self, SessionAttached, Instant), Error> {
        let (outbox, messages) = mpsc::channel(1);
        let sent = Instant::now();
        // The headers of the answer come with the first message, so that has to be there first.
        let message = SessionRequest { message: Some(Asked::Attach(attach)) };
        outbox.try_send(message).map_err(|_| ended(client))?;
        let request = client.request(ReceiverStream::new(messages));
        let failed = |status| Error::of(status, client.address());
        let answers = client.stub().session(request).await.map_err(failed)?.into_inner();
        let mut stream = Self { outbox, answers };
        match stream.answer(client).await? {
            Answer::Attached(attached) => Ok((stream, attached, sent)),
            _ => Err(Error::unexpected(client.address())),
        }
    }

    /// Send a message, and answer the one that comes.
    pub(crate) async fn exchange(
        &mut self,
        message: Asked,
        client: &Client,
    ) -> Result<Answer, Error> {
        let message = SessionRequest { message: Some(message) };
        // A stream that takes no message has ended, and its end says why.
        let _ = self.outbox.send(message).await;
        self.answer(client).await
    }

    async fn answer(&mut self, client: &Client) -> Result<Answer, Error> {
        match self.answers.message().await {
            Ok(Some(SessionResponse { message: Some(answer) })) => Ok(answer),
            Ok(Some(SessionResponse { message: None })) => Err(Error::unexpected(client.address())),
            Ok(None) => Err(ended(client)),
            Err(status) => Err(Error::of(status, client.address())),
        }
    }
}

fn ended(client: &Client) -> Error {
    let message = format!("{} ended the session's stream without an answer", client.address());
    Error::broken(message, true)
}
