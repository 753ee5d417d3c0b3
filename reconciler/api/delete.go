package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
)

// delete ends a pod, so that it is made again. Everything else is removed in Git.
func (q *request) delete() {
	f, err := negotiate(q.r, offer{everyMedia, wholeOnly})
	if err != nil {
		q.fail(err)
		return
	}
	options, err := q.deleteOptions()
	if err != nil {
		q.fail(err)
		return
	}
	item, err := q.item()
	if err != nil {
		q.fail(err)
		return
	}
	if !q.restarts() {
		q.fail(q.refusal())
		return
	}
	pod, err := q.restart(q.r.Context(), item, options)
	if err != nil {
		q.fail(err)
		return
	}
	if text := q.bareWarning(item); text != "" {
		warn(q.w, text)
	}
	q.writeObject(q.w, q.r, http.StatusOK, f, pod)
}

func (q *request) restarts() bool { return q.res.kind == schema.Pods && q.RestartPod != nil }

// deleteCollection ends every pod that is selected.
func (q *request) deleteCollection() {
	f, err := negotiate(q.r, offer{everyMedia, wholeOnly})
	if err != nil {
		q.fail(err)
		return
	}
	if !q.restarts() {
		q.fail(q.refusal())
		return
	}
	options, err := q.deleteOptions()
	if err != nil {
		q.fail(err)
		return
	}
	o, err := q.options()
	if err != nil {
		q.fail(err)
		return
	}
	items, meta, err := q.page(o)
	if err != nil {
		q.fail(err)
		return
	}
	gone := &corev1.PodList{TypeMeta: q.res.listMeta(), ListMeta: metav1.ListMeta{ResourceVersion: meta.ResourceVersion}, Items: []corev1.Pod{}}
	for _, i := range items {
		pod, err := q.restart(q.r.Context(), i, options)
		if errors.Is(err, schema.ErrNotFound) || apierrors.IsNotFound(err) {
			continue // somebody was quicker
		}
		if err != nil {
			q.fail(err)
			return
		}
		pod.TypeMeta = metav1.TypeMeta{}
		gone.Items = append(gone.Items, *pod)
	}
	q.writeObject(q.w, q.r, http.StatusOK, f, gone)
}

// deleteOptions reads the options of a deletion, from the body or the query.
func (q *request) deleteOptions() (*metav1.DeleteOptions, error) {
	o := new(metav1.DeleteOptions)
	if err := q.readBody(o, metav1.SchemeGroupVersion.WithKind("DeleteOptions")); err != nil {
		return nil, err
	}
	if err := fromQuery(o, q.r); err != nil {
		return nil, err
	}
	if faults := validation.ValidateDeleteOptions(o); len(faults) > 0 {
		return nil, apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind("DeleteOptions").GroupKind(), "", faults)
	}
	if o.GracePeriodSeconds != nil && *o.GracePeriodSeconds < 0 {
		one := int64(1) // Kubernetes takes a negative grace for the shortest
		o.GracePeriodSeconds = &one
	}
	return o, nil
}

func fromQuery(o *metav1.DeleteOptions, r *http.Request) error {
	query := r.URL.Query()
	if dry := query["dryRun"]; len(dry) > 0 {
		o.DryRun = dry
	}
	if grace := query.Get("gracePeriodSeconds"); grace != "" {
		seconds, err := strconv.ParseInt(grace, 10, 64)
		if err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		o.GracePeriodSeconds = &seconds
	}
	return nil
}

// restart ends one pod, and returns it as it is while it ends.
func (q *request) restart(ctx context.Context, i *cache.Item, o *metav1.DeleteOptions) (*corev1.Pod, error) {
	pod := i.Object().(*corev1.Pod)
	if err := precondition(pod, o.Preconditions); err != nil {
		return nil, apierrors.NewConflict(q.res.groupResource(), pod.Name, err)
	}
	if slices.Contains(o.DryRun, metav1.DryRunAll) {
		return ending(pod, metav1.NewTime(q.Now()), o.GracePeriodSeconds), nil
	}
	uid := pod.UID
	ended, err := q.RestartPod(ctx, schema.PodKey{Namespace: pod.Namespace, Name: pod.Name}, uid, o.GracePeriodSeconds)
	if err != nil {
		return nil, err
	}
	ended = ended.DeepCopy()
	ended.TypeMeta = pod.TypeMeta
	if ended.ResourceVersion == "" {
		ended.ResourceVersion = pod.ResourceVersion
	}
	return ended, nil
}

// precondition says why a pod is not the one that was meant.
func precondition(pod *corev1.Pod, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != pod.UID {
		return fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, pod.UID)
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != pod.ResourceVersion {
		return fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, pod.ResourceVersion)
	}
	return nil
}

// ending is a pod as it would be while it ends.
func ending(pod *corev1.Pod, now metav1.Time, grace *int64) *corev1.Pod {
	c := pod.DeepCopy()
	if c.DeletionTimestamp != nil {
		return c
	}
	if grace == nil {
		grace = c.Spec.TerminationGracePeriodSeconds
	}
	if grace == nil {
		grace = new(int64(30))
	}
	end := metav1.NewTime(now.Add(time.Duration(*grace) * time.Second))
	c.DeletionTimestamp, c.DeletionGracePeriodSeconds = &end, grace
	return c
}
