// SPDX-License-Identifier: Apache-2.0

// Package coresdk asks the CoreSDK sidecar who is calling and what they may
// do. It never lets a request through on anything but the sidecar's clean
// yes: no answer, a late answer, a half answer and a contradictory answer all
// deny. It never logs, and no token appears in an error.
//
// # Start
//
// FromEnv reads the environment, dials, and asks the sidecar's health. A
// service whose FromEnv fails must not serve:
//
//	sdk, err := coresdk.FromEnv()
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer sdk.Close()
//
// # Ask
//
// Authorize answers who a token speaks for. Its claims are worth something
// only when the error is nil, and then they are never nil:
//
//	claims, err := sdk.Authorize(ctx, token)
//	if err != nil {
//		return deny // ErrUnauthorized or ErrUnavailable: both deny
//	}
//
// Can asks whether a token's owner may do an action on a resource, Evaluate
// asks a policy rule, Revoke ends a token before its time.
//
// Every call is over within Config.Timeout, one second by default, or earlier
// if the context says so. Nothing is remembered between calls and nothing is
// asked twice.
//
// # Errors
//
// ErrUnauthorized: the sidecar answered, and the answer is not a clean yes.
// ErrUnavailable: no usable answer came: refused, hung, TLS wrong, stream
// broken. The difference is for the log and the pager. For the request there
// is none.
//
// # Environment
//
//	CORESDK_SIDECAR_ADDR   host:port or unix:///path; localhost:50051 when unset
//	CORESDK_FAIL_MODE      closed, or unset; anything else is refused
//	CORESDK_TENANT_ID      the practice the service works for, told to the sidecar
//	CORESDK_SERVICE_NAME   sent with every call as x-service-name
//	CORESDK_SERVICE_TOKEN  sent with every call as x-service-token
//	CORESDK_TLS_CERT       client certificate, PEM file
//	CORESDK_TLS_KEY        its private key, PEM file
//	CORESDK_TLS_CA         the authority that signed the sidecar's certificate, PEM file
//	CORESDK_ENV            dev allows plaintext on loopback; nothing else changes
//
// Other CORESDK_ variables, such as CORESDK_JWKS_URI, are the sidecar's and
// are ignored here.
//
// # Transport
//
// The connection is mutual TLS 1.3, with all three files or none. The files
// are read again for each new connection, so that a renewed certificate needs
// no restart. Without them only two roads are open: a unix socket, in a
// directory that only the sidecar may write, and loopback in dev. Proxies of
// the environment are not used.
package coresdk
