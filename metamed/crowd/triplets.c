/* How probable answers to triplets are, and its gradient, compiled: `_metamed_triplets`.
 *
 * metamed/crowd/likelihood.py says what the numbers mean and has the same in numpy, which is used where this could not
 * be built. One pass over the answers, no memory of its own, the interpreter's lock is not kept.
 */
#define Py_LIMITED_API 0x030B0000 /* one build serves Python 3.11 and all later ones */
#include <Python.h>
#include <math.h>
#include <stdint.h>

enum { VERSION = 1 };     /* likelihood.py uses no other build than its own */
enum { TOGETHER = 64 };   /* probabilities multiplied before one logarithm: half a lapse each at least, no underflow */
enum { SLOPE, BIAS, LAPSE, TRAITS }; /* of an annotator */
static const double LEAST = 1e-3;    /* lapse */

typedef struct {
    const int32_t *anchor, *closer, *farther, *annotator;
    const double *side, *position, *traits;
    double *to_position, *to_traits;
} Problem;

/* Vector from `b` to `a`, its length; divided by it, so that it is the gradient of the distance (0 at distance 0). */
static inline double towards(const double *a, const double *b, int d, double *unit)
{
    double square = 0;
    for (int k = 0; k < d; k++) unit[k] = a[k] - b[k], square += unit[k] * unit[k];
    double length = sqrt(square), inverse = length > 0 ? 1 / length : 0;
    for (int k = 0; k < d; k++) unit[k] *= inverse;
    return length;
}

/* Adds the gradient of answer `t`, whose distances have the gradients `near` and `far`; gives its probability. */
static inline double answer(const Problem *p, size_t t, int d, double *near, double *far)
{
    size_t a = (size_t)p->anchor[t] * d, c = (size_t)p->closer[t] * d, f = (size_t)p->farther[t] * d;
    const double *trait = p->traits + TRAITS * (size_t)p->annotator[t];
    double *to_trait = p->to_traits + TRAITS * (size_t)p->annotator[t], slope = trait[SLOPE], lapse = trait[LAPSE];
    double gap = towards(p->position + a, p->position + f, d, far) - towards(p->position + a, p->position + c, d, near);
    double z = slope * gap + p->side[t] * trait[BIAS];
    double e = exp(-fabs(z)), share = 1 / (1 + e), tail = e * share, looking = z > 0 ? share : tail;
    double probability = lapse / 2 + (1 - lapse) * looking;
    double rise = (1 - lapse) * share * tail / probability, pull = rise * slope;
    to_trait[SLOPE] += rise * gap;
    to_trait[BIAS] += rise * p->side[t];
    to_trait[LAPSE] += (0.5 - looking) / probability;
    for (int k = 0; k < d; k++) {
        p->to_position[a + k] += pull * (far[k] - near[k]);
        p->to_position[c + k] += pull * near[k];
        p->to_position[f + k] -= pull * far[k];
    }
    return probability;
}

static inline double all(const Problem *p, size_t n, int d, double *near, double *far)
{
    double total = 0;
    for (size_t start = 0; start < n; start += TOGETHER) {
        size_t end = start + TOGETHER < n ? start + TOGETHER : n;
        double product = 1;
        for (size_t t = start; t < end; t++) product *= answer(p, t, d, near, far);
        total += log(product);
    }
    return total;
}

/* Loops over a number of dimensions that is known when compiled are unrolled. */
static double evaluate(const Problem *p, size_t n, int d, double *room)
{
    double near[8], far[8];
    switch (d) {
    case 1: return all(p, n, 1, near, far);
    case 2: return all(p, n, 2, near, far);
    case 3: return all(p, n, 3, near, far);
    case 4: return all(p, n, 4, near, far);
    case 5: return all(p, n, 5, near, far);
    default: return all(p, n, d, room, room + d);
    }
}

static int within(const int32_t *index, Py_ssize_t n, Py_ssize_t count)
{
    for (Py_ssize_t t = 0; t < n; t++) if (index[t] < 0 || index[t] >= count) return 0;
    return 1;
}

static int possible(const double *traits, Py_ssize_t people)
{
    for (Py_ssize_t k = 0; k < people; k++) if (!(traits[TRAITS * k + LAPSE] >= LEAST)) return 0;
    return 1;
}

static PyObject *likelihood(PyObject *self, PyObject *args)
{
    Py_buffer b[10]; /* answers: four indices, side; position, traits; gradients to these two; room */
    int d;
    double total = 0;
    if (!PyArg_ParseTuple(args, "iy*y*y*y*y*y*y*w*w*w*", &d, b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7, b + 8,
                          b + 9)) return NULL;
    Py_ssize_t n = b[0].len / 4, images = d > 0 ? b[5].len / 8 / d : 0, people = b[6].len / 8 / TRAITS;
    int fit = d > 0 && b[4].len / 8 == n && b[7].len == b[5].len && b[8].len == b[6].len
           && b[9].len >= 16 * (Py_ssize_t)d && possible(b[6].buf, people);
    for (int k = 0; fit && k < 4; k++) fit = b[k].len / 4 == n && within(b[k].buf, n, k < 3 ? images : people);
    Py_BEGIN_ALLOW_THREADS
    if (fit) {
        Problem p = {b[0].buf, b[1].buf, b[2].buf, b[3].buf, b[4].buf, b[5].buf, b[6].buf, b[7].buf, b[8].buf};
        total = evaluate(&p, (size_t)n, d, b[9].buf);
    }
    Py_END_ALLOW_THREADS
    for (int k = 0; k < 10; k++) PyBuffer_Release(b + k);
    if (!fit) return PyErr_SetString(PyExc_ValueError, "buffers do not fit each other, or a lapse is too small"), NULL;
    return PyFloat_FromDouble(total);
}

static PyMethodDef functions[] = {
    {"likelihood", likelihood, METH_VARARGS,
     "likelihood(dimensions, *answers, position, traits, *gradients, room): adds to the gradients."},
    {NULL, NULL, 0, NULL},
};
static int ready(PyObject *module) { return PyModule_AddIntConstant(module, "VERSION", VERSION); }
static PyModuleDef_Slot slots[] = {{Py_mod_exec, ready}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_metamed_triplets", "How probable answers to triplets are.", 0, functions, slots, NULL,
    NULL, NULL,
};
PyMODINIT_FUNC PyInit__metamed_triplets(void) { return PyModuleDef_Init(&definition); }
