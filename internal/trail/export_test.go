// SPDX-License-Identifier: Apache-2.0

package trail

// WithFault makes the sealer fail where f says.
func (c SealerConfig) WithFault(f func(step string) error) SealerConfig {
	c.fault = f
	return c
}
