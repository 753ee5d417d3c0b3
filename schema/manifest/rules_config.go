package manifest

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// maxDataBytes is what a ConfigMap or Secret may hold.
const maxDataBytes = 1 << 20

func (o *objectReader) configMapRules(x *corev1.ConfigMap) {
	size := 0
	for k, v := range x.Data {
		size += len(k) + len(v)
	}
	for _, k := range sortedKeys(x.BinaryData) {
		size += len(k) + len(x.BinaryData[k])
		if _, both := x.Data[k]; both {
			o.fault(fieldPath("binaryData", k), "stands in data too", "a name stands in one of the two")
		}
	}
	o.sizeRule(size)
}

func (o *objectReader) sizeRule(size int) {
	if size > maxDataBytes {
		o.fault("", fmt.Sprintf("holds %d bytes, the limit is %d", size, maxDataBytes), "")
	}
}

// secretKeys are the names that Secrets of a type must have.
var secretKeys = map[corev1.SecretType][]string{
	corev1.SecretTypeTLS:              {corev1.TLSCertKey, corev1.TLSPrivateKeyKey},
	corev1.SecretTypeDockercfg:        {corev1.DockerConfigKey},
	corev1.SecretTypeDockerConfigJson: {corev1.DockerConfigJsonKey},
	corev1.SecretTypeSSHAuth:          {corev1.SSHAuthPrivateKey},
}

func (o *objectReader) secretRules(x *corev1.Secret) {
	size := 0
	for k, v := range x.Data {
		size += len(k) + len(v)
	}
	o.sizeRule(size)
	for _, k := range secretKeys[x.Type] {
		v, there := x.Data[k]
		path := fieldPath("data", k)
		if !there {
			o.fault(path, "is missing", "a Secret of type "+string(x.Type)+" has it")
			continue
		}
		if (k == corev1.DockerConfigJsonKey || k == corev1.DockerConfigKey) && !json.Valid(v) {
			o.fault(path, "is not JSON", "it is the file that `docker login` writes")
		}
	}
	if x.Type == corev1.SecretTypeBasicAuth {
		_, user := x.Data[corev1.BasicAuthUsernameKey]
		_, password := x.Data[corev1.BasicAuthPasswordKey]
		if !user && !password {
			o.fault("data", "has neither username nor password", "a Secret of type "+string(x.Type)+" has one of them")
		}
	}
	if x.Type == corev1.SecretTypeServiceAccountToken && x.Annotations[corev1.ServiceAccountNameKey] == "" {
		o.fault("metadata.annotations", "has no "+corev1.ServiceAccountNameKey, "a Secret of type "+string(x.Type)+" has it")
	}
}
