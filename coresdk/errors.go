// SPDX-License-Identifier: Apache-2.0

package coresdk

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Both errors mean: deny. Test for them with errors.Is. Texts carry reasons
// and gRPC codes, never a token, an input, or a text the sidecar sent.
var (
	// ErrUnauthorized says that the sidecar answered, and that the answer is
	// not a clean yes.
	ErrUnauthorized = errors.New("coresdk: unauthorized")
	// ErrUnavailable says that no usable answer came: the sidecar refused the
	// connection, hung, failed TLS, or broke off.
	ErrUnavailable = errors.New("coresdk: sidecar unavailable")
)

// failed returns what the failure of a call means. The sidecar's own text is
// left out: it could repeat the token. That time ran out, or that the caller
// gave up, can be told with errors.Is as well.
func failed(ctx context.Context, call string, err error) error {
	code := status.Code(err)
	switch code {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument:
		return fmt.Errorf("%w: %s: %s", ErrUnauthorized, call, code)
	case codes.DeadlineExceeded: // the far side may notice before our own clock does
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, call, context.DeadlineExceeded)
	default:
	}
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, call, cause)
	}
	return fmt.Errorf("%w: %s: %s", ErrUnavailable, call, code)
}
