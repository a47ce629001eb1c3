// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
)

func importing(ctx context.Context, b *bench, r *result) error { return errors.New("to come") }
func readPatient(ctx context.Context, b *bench, r *result) error { return errors.New("to come") }
func appendAudit(ctx context.Context, b *bench, r *result) error { return errors.New("to come") }
func decide(ctx context.Context, b *bench, r *result) error { return errors.New("to come") }
