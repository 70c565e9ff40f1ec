// The whole job against a Graft server:
//
//   node dist/main.js HOST:PORT TRAIN.csv TEST.csv
//
// streams the labelled texts of TRAIN.csv in, waits for the version that is trained on them, has it answer
// TEST.csv under a deadline, and reads the details of two errors. Both files have the columns text and intent.
// It exits non-zero when anything is not as expected, so it is also a test of the server.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";

import * as grpc from "@grpc/grpc-js";
import { parse } from "csv-parse/sync";

import { isServiceError, detailsOf, detailsOfCall, type Details } from "./errors.js";
import {
  AdaptationServiceClient,
  AdaptRequest,
  type AdaptResponse,
  type Commit,
  ExampleBatch,
  type Published,
} from "./gen/graft/v1/adaptation.js";
import { PredictionServiceClient, PredictRequest, type PredictResponse } from "./gen/graft/v1/prediction.js";

const MODEL = "examples/node-intents";
const EXAMPLES_A_MESSAGE = 50;
const CALLS = 5;
const PREDICT_DEADLINE_MS = 10_000;

interface Row {
  text: string;
  intent: string;
}

type AdaptStream = grpc.ClientDuplexStream<AdaptRequest, AdaptResponse>;

function readRows(path: string): Row[] {
  return parse(readFileSync(path), { columns: true, skip_empty_lines: true });
}

/** Writes a message, and waits while the server has more than it takes at once: gRPC's flow control. */
async function send(stream: AdaptStream, message: AdaptRequest["message"]): Promise<void> {
  if (!stream.write({ message })) {
    await once(stream, "drain");
  }
}

/** Sends the rows from number `next` on, then the commit that ends the adaptation. */
async function sendRows(stream: AdaptStream, rows: Row[], next: number): Promise<void> {
  for (let first = next; first < rows.length; first += EXAMPLES_A_MESSAGE) {
    const changes = rows.slice(first, first + EXAMPLES_A_MESSAGE).map(({ text, intent }) => ({
      change: {
        $case: "upsert" as const,
        value: {
          input: { kind: { $case: "text" as const, value: text } },
          target: { $case: "label" as const, value: intent },
        },
      },
    }));
    await send(stream, {
      $case: "examples",
      value: ExampleBatch.fromPartial({ firstSequence: BigInt(first), changes }),
    });
  }
  // A name of our own makes the commit safe to repeat: it is carried out once.
  const commit: Commit = { commitId: "everything", close: true };
  await send(stream, { $case: "commit", value: commit });
  stream.end();
}

/** What one or more calls of Adapt led to. */
interface Outcome {
  published?: Published;
  acknowledged: number;
  rejected: bigint[];
  progress: number;
}

/** One call of Adapt. Says what happened as it happens, and leaves the outcome in `outcome`. */
async function adaptOnce(
  client: AdaptationServiceClient,
  adaptationId: string,
  rows: Row[],
  outcome: Outcome,
): Promise<void> {
  const stream = client.adapt();
  let sending = Promise.resolve();
  await send(stream, AdaptRequest.fromPartial({
    message: { $case: "start", value: { adaptationId, model: MODEL } },
  }).message);

  for await (const { message } of stream as AsyncIterable<AdaptResponse>) {
    switch (message?.$case) {
      case "started": {
        const { nextSequence } = message.value;
        console.log(`started ${adaptationId}, from example ${nextSequence}`);
        outcome.acknowledged = Number(nextSequence);
        sending = sendRows(stream, rows, outcome.acknowledged);
        // A failure to send ends the reading too, with the call's own error; this one is awaited below.
        sending.catch(() => undefined);
        break;
      }
      case "accepted":
        outcome.acknowledged = Number(message.value.nextSequence);
        console.log(`acknowledged ${outcome.acknowledged} of ${rows.length}`);
        for (const { sequence, reason, field, detail } of message.value.rejected) {
          outcome.rejected.push(sequence);
          console.log(`rejected example ${sequence}: ${reason} (${field}): ${detail}`);
        }
        break;
      case "committed":
        console.log(`committed ${message.value.commitId}`);
        break;
      case "progress":
        if (message.value.commitId !== "") {
          outcome.progress += 1;
          console.log(`${message.value.stage}: ${Math.round(100 * message.value.fraction)}%`);
        }
        break;
      case "published":
        outcome.published = message.value;
        break;
      case "publicationFailed": {
        const { status } = message.value;
        assert.fail(`not published: ${status?.message} ${format(status ? detailsOf(status) : {})}`);
        break;
      }
      case "reconnect":
        return;
    }
  }
  await sending;
}

/** The whole of Adapt: a call that breaks is taken up where the server's acknowledgements ended. */
async function adapt(client: AdaptationServiceClient, rows: Row[]): Promise<Outcome> {
  const adaptationId = randomUUID();
  const outcome: Outcome = { acknowledged: 0, rejected: [], progress: 0 };
  for (let call = 1; outcome.published === undefined; call += 1) {
    try {
      await adaptOnce(client, adaptationId, rows, outcome);
    } catch (error) {
      if (!isServiceError(error) || error.code !== grpc.status.UNAVAILABLE || call === CALLS) {
        throw error;
      }
    }
    assert.ok(outcome.published !== undefined || call < CALLS, `nothing published in ${CALLS} calls`);
  }
  return outcome;
}

function predict(client: PredictionServiceClient, model: string, texts: string[]): Promise<PredictResponse> {
  const request = PredictRequest.fromPartial({
    model,
    inputs: texts.map((text) => ({ kind: { $case: "text" as const, value: text } })),
    topK: 3,
  });
  const deadline = Date.now() + PREDICT_DEADLINE_MS;
  return new Promise((resolve, reject) => {
    client.predict(request, new grpc.Metadata(), { deadline }, (error, response) => {
      if (error) {
        reject(error);
      } else {
        resolve(response);
      }
    });
  });
}

/** The details of a call that is expected to fail with this code. */
async function failure(call: Promise<unknown>, code: grpc.status): Promise<Details> {
  const error: unknown = await call.then(
    () => assert.fail(`expected ${grpc.status[code]}, but the call succeeded`),
    (reason: unknown) => reason,
  );
  if (!isServiceError(error)) {
    throw error;
  }
  assert.equal(grpc.status[error.code], grpc.status[code], error.message);
  const details = detailsOfCall(error);
  console.log(`\n${grpc.status[code]}: ${error.details}\n${format(details)}`);
  return details;
}

function format(details: Details): string {
  return JSON.stringify(details, null, 2);
}

async function main(target: string, trainPath: string, testPath: string): Promise<void> {
  const adaptation = new AdaptationServiceClient(target, grpc.credentials.createInsecure());
  const prediction = new PredictionServiceClient(target, grpc.credentials.createInsecure());
  try {
    // One row is wrong on purpose: it is refused by its number, the others go on.
    const rows = [...readRows(trainPath), { text: " ", intent: "nothing" }];
    const outcome = await adapt(adaptation, rows);
    const { version, summary } = outcome.published!;
    console.log(`version ${version}: ${summary?.examples} examples, accuracy ${summary?.accuracy.toFixed(3)}\n`);
    assert.equal(outcome.acknowledged, rows.length);
    assert.deepEqual(outcome.rejected, [BigInt(rows.length - 1)]);
    assert.ok(outcome.progress > 0, "no progress was reported");
    assert.equal(summary?.examples, BigInt(rows.length - 1));

    const test = readRows(testPath);
    const response = await predict(prediction, MODEL, test.map(({ text }) => text));
    assert.equal(response.version, version);
    assert.equal(response.results.length, test.length);
    const best = response.results.map(({ result }) => {
      assert.equal(result?.$case, "singleLabel");
      return result.value.scores[0];
    });
    const right = best.filter((score, index) => score?.label === test[index]?.intent).length;
    for (const [index, score] of best.slice(0, 3).entries()) {
      console.log(`${test[index]?.text} -> ${score?.label} (${score?.probability.toFixed(3)})`);
    }
    console.log(`${right} of ${test.length} right on ${testPath}`);
    assert.ok(right / test.length > 0.7, "the model answers badly");

    const missing = await failure(predict(prediction, "no/such-model", ["hello"]), grpc.status.NOT_FOUND);
    assert.equal(missing.errorInfo?.domain, "graft");
    assert.match(missing.errorInfo.reason, /^[A-Z][A-Z0-9_]*$/);

    const invalid = await failure(predict(prediction, MODEL, []), grpc.status.INVALID_ARGUMENT);
    assert.equal(invalid.errorInfo?.domain, "graft");
    assert.equal(invalid.badRequest?.fieldViolations[0]?.field, "inputs");
  } finally {
    adaptation.close();
    prediction.close();
  }
  console.log("\neverything as expected");
}

const [target, trainPath, testPath] = process.argv.slice(2);
if (target === undefined || trainPath === undefined || testPath === undefined) {
  console.error("usage: node dist/main.js HOST:PORT TRAIN.csv TEST.csv");
  process.exitCode = 2;
} else {
  main(target, trainPath, testPath).catch((error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  });
}
