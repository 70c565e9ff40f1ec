// What a failed call carries besides its code: the google.rpc details, decoded.

import type { ServiceError } from "@grpc/grpc-js";

import { BadRequest, ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

export interface Details {
  /** The reason in UPPER_SNAKE_CASE, and facts about it: what a program acts on. */
  errorInfo?: ErrorInfo;
  /** Which fields of the request are at fault. */
  badRequest?: BadRequest;
  /** When to try again. */
  retryInfo?: RetryInfo;
}

/** The details of a status, such as the one that a single result or a failed publication carries. */
export function detailsOf(status: Status): Details {
  const details: Details = {};
  for (const { typeUrl, value } of status.details) {
    switch (typeUrl.slice(typeUrl.lastIndexOf("/") + 1)) {
      case "google.rpc.ErrorInfo":
        details.errorInfo = ErrorInfo.decode(value);
        break;
      case "google.rpc.BadRequest":
        details.badRequest = BadRequest.decode(value);
        break;
      case "google.rpc.RetryInfo":
        details.retryInfo = RetryInfo.decode(value);
        break;
    }
  }
  return details;
}

/** The details of a failed call: gRPC sends its whole status as one binary trailer. */
export function detailsOfCall(error: ServiceError): Details {
  const [trailer] = error.metadata.get("grpc-status-details-bin");
  return trailer === undefined ? {} : detailsOf(Status.decode(Buffer.from(trailer)));
}

/** Whether a caught error is a call's: it has a code then, and perhaps details. */
export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && typeof error.code === "number" && "metadata" in error;
}
