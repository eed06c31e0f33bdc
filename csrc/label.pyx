"""Connected components of a mask that arrives row by row, as runs.

A *run* is a stretch of foreground in one row. Runs of neighbouring rows that touch are joined by
union-find; nothing is kept but the runs of components that may still grow. The kernel knows neither
images nor cells: it gets pointers to rows and hands out finished components.

A component is *finished* when no run of it lies on the newest row. Beside its runs it counts the
contacts between them: ``contacts - runs + 1`` is its number of holes, because the graph of runs of a
planar figure has exactly one independent cycle around each hole.
"""

import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from vector cimport Ints, free_ints, reserve_ints

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #endif
    #if defined(_MSC_VER)
    #include <intrin.h>
    static inline int lowest_bit(uint64_t bits)
    { unsigned long at; _BitScanForward64(&at, bits); return (int)at; }
    #else
    static inline int lowest_bit(uint64_t bits) { return __builtin_ctzll(bits); }
    #endif

    /* Bit i of the result says whether p[i] >= threshold, for 64 bytes. */
    static inline uint64_t foreground_bits(const uint8_t *p, uint8_t threshold)
    {
        uint64_t bits = 0;
    #if defined(__SSE2__)
        const __m128i limit = _mm_set1_epi8((char)threshold);
        for (int part = 0; part < 4; part++) {
            __m128i v = _mm_loadu_si128((const __m128i *)(p + 16 * part));
            v = _mm_cmpeq_epi8(_mm_max_epu8(v, limit), v);
            bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(v) << (16 * part);
        }
    #else
        for (int i = 0; i < 64; i++)
            bits |= (uint64_t)(p[i] >= threshold) << i;
    #endif
        return bits;
    }
    """
    int lowest_bit(uint64_t bits) noexcept nogil
    uint64_t foreground_bits(const uint8_t* p, uint8_t threshold) noexcept nogil


#: Columns of the table of components: range in the array of runs, bounding box (half-open), holes.
COMPONENT_FIELDS = ("run_begin", "run_end", "y0", "x0", "y1", "x1", "holes")

cdef enum:
    RUN = 4  # values of a stored run: y, x0, x1, next run of the component (or -1)
    NODE = 11  # values of a stored component, in the order below
    PARENT = 0
    HEAD = 1
    TAIL = 2
    Y0 = 3
    X0 = 4
    Y1 = 5
    X1 = 6
    RUNS = 7
    CONTACTS = 8
    CUT = 9  # the component has lost pixels: its contacts no longer count its holes
    FORWARD = 10  # new number while the table is being packed


cdef inline int32_t find(int32_t* nodes, int32_t node) noexcept nogil:
    cdef int32_t parent = nodes[node * NODE]
    while parent != node:
        nodes[node * NODE] = nodes[parent * NODE]  # path halving
        node = parent
        parent = nodes[node * NODE]
    return node


cdef inline int32_t unite(int32_t* nodes, int32_t* runs, int32_t a, int32_t b) noexcept nogil:
    """Join two roots; the older one (smaller number) stays."""
    cdef int32_t* into
    cdef int32_t* other
    if a > b:
        a, b = b, a
    into = nodes + a * NODE
    other = nodes + b * NODE
    other[PARENT] = a
    if other[HEAD] >= 0:
        if into[HEAD] < 0:
            into[HEAD] = other[HEAD]
        else:
            runs[into[TAIL] * RUN + 3] = other[HEAD]
        into[TAIL] = other[TAIL]
    into[Y0] = min(into[Y0], other[Y0])
    into[X0] = min(into[X0], other[X0])
    into[Y1] = max(into[Y1], other[Y1])
    into[X1] = max(into[X1], other[X1])
    into[RUNS] += other[RUNS]
    into[CONTACTS] += other[CONTACTS]
    into[CUT] |= other[CUT]
    return a


cdef inline int32_t row_edges(const uint8_t* row, int32_t width, uint8_t threshold, int32_t* edges) noexcept nogil:
    """Write the columns where background and foreground alternate; return how many (even)."""
    cdef int32_t base, count = 0
    cdef uint64_t bits, toggles, carry = 0
    cdef uint8_t tail[64]
    for base in range(0, width - 63, 64):
        bits = foreground_bits(row + base, threshold)
        toggles = bits ^ ((bits << 1) | carry)
        carry = bits >> 63
        while toggles:
            edges[count] = base + lowest_bit(toggles)
            count += 1
            toggles &= toggles - 1
    base = width & ~63
    if base < width:
        memcpy(tail, row + base, width - base)
        bits = foreground_bits(tail, threshold) & (((<uint64_t>1) << (width - base)) - 1)
        toggles = bits ^ ((bits << 1) | carry)
        carry = 0
        while toggles:
            edges[count] = base + lowest_bit(toggles)
            count += 1
            toggles &= toggles - 1
    elif carry:
        edges[count] = width
        count += 1
    return count


cdef class RunLabeler:
    """Streaming connected components of ``row >= threshold``.

    Parameters
    ----------
    width
        Columns of the image.
    threshold
        Smallest byte that counts as foreground.
    connectivity
        8 (touching corners connect) or 4.
    """

    cdef int32_t width, reach, row, previous_count
    cdef int64_t garbage  # stored runs that belong to no component any more
    cdef uint8_t threshold
    cdef Ints runs, nodes, live, edges, previous, borrowed

    def __cinit__(self, Py_ssize_t width, int threshold, int connectivity=8):
        self.width = width
        self.threshold = threshold
        self.reach = 1 if connectivity == 8 else 0
        reserve_ints(&self.edges, width + 2)
        reserve_ints(&self.previous, 2 * width + 4)

    def __dealloc__(self):
        free_ints(&self.runs)
        free_ints(&self.nodes)
        free_ints(&self.live)
        free_ints(&self.edges)
        free_ints(&self.previous)
        free_ints(&self.borrowed)

    @property
    def rows(self):
        """Number of rows seen."""
        return self.row

    @property
    def oldest(self):
        """First row of the oldest component that can still grow; the newest row + 1 without any."""
        cdef int64_t i
        cdef int32_t y = self.row
        for i in range(self.live.size):
            y = min(y, self.nodes.data[self.live.data[i] * NODE + Y0])
        return y

    def push(self, const uintptr_t[::1] rows):
        """Label further rows.

        Parameters
        ----------
        rows
            Addresses of the rows, each of ``width`` bytes that live during the call.
        """
        cdef Py_ssize_t i
        with nogil:
            for i in range(rows.shape[0]):
                self._push_row(<const uint8_t*>rows[i])

    cdef int _push_row(self, const uint8_t* row) except -1 nogil:
        cdef int32_t* edges = self.edges.data
        # previous: x0, x1 of each run of the last row interleaved with its component, then ours
        cdef int32_t* before = self.previous.data
        cdef int32_t n = row_edges(row, self.width, self.threshold, edges) >> 1
        cdef int32_t n_before = self.previous_count
        cdef int32_t reach = self.reach, i, j = 0, k, x0, x1, node, other, run
        cdef int32_t* runs
        cdef int32_t* nodes
        cdef int32_t* record
        reserve_ints(&self.runs, n * RUN)
        reserve_ints(&self.nodes, <int64_t>n * NODE)
        reserve_ints(&self.live, n)
        runs = self.runs.data
        nodes = self.nodes.data
        run = <int32_t>(self.runs.size / RUN)
        for i in range(n):
            x0 = edges[2 * i]
            x1 = edges[2 * i + 1]
            runs[run * RUN] = self.row
            runs[run * RUN + 1] = x0
            runs[run * RUN + 2] = x1
            runs[run * RUN + 3] = -1
            while j < n_before and before[3 * j + 1] + reach <= x0:
                j += 1
            node = -1
            k = j
            while k < n_before and before[3 * k] < x1 + reach:
                other = find(nodes, before[3 * k + 2])
                if node < 0:
                    node = other
                elif node != other:
                    node = unite(nodes, runs, node, other)
                nodes[node * NODE + CONTACTS] += 1
                k += 1
            # the last of them may touch our next run too, so j stays on it
            if k > j:
                j = k - 1
            if node < 0:
                node = <int32_t>(self.nodes.size / NODE)
                self.nodes.size += NODE
                self.live.data[self.live.size] = node
                self.live.size += 1
                record = nodes + node * NODE
                record[PARENT] = node
                record[HEAD] = run
                record[Y0] = self.row
                record[X0] = x0
                record[X1] = x1
                record[RUNS] = 0
                record[CONTACTS] = 0
                record[CUT] = 0
            else:
                record = nodes + node * NODE
                if record[HEAD] < 0:
                    record[HEAD] = run
                else:
                    runs[record[TAIL] * RUN + 3] = run
                record[X0] = min(record[X0], x0)
                record[X1] = max(record[X1], x1)
            record[TAIL] = run
            record[Y1] = self.row + 1
            record[RUNS] += 1
            edges[2 * i] = node  # its columns are in `runs` by now
            run += 1
        for i in range(n):
            run = <int32_t>(self.runs.size / RUN) + i
            before[3 * i] = runs[run * RUN + 1]
            before[3 * i + 1] = runs[run * RUN + 2]
            before[3 * i + 2] = edges[2 * i]
        self.runs.size += n * RUN
        self.previous_count = n
        self.row += 1
        return 0

    def take(self, bint everything=False):
        """Hand out and forget the finished components.

        Parameters
        ----------
        everything
            The image has ended: no component can grow any more.

        Returns
        -------
        components : ndarray of int32, shape (n, 7)
            :data:`COMPONENT_FIELDS`, in raster order of the first pixel. ``holes`` is -1 where
            it is not known.
        runs : ndarray of int32, shape (m, 3)
            Row, first column and end column of each run, component by component.
        """
        cdef int32_t* nodes = self.nodes.data
        cdef int64_t i, kept = 0
        cdef int32_t node, old, n_components = 0
        cdef int64_t n_runs = 0
        cdef int32_t[:, ::1] components
        cdef int32_t[:, ::1] runs
        # 1. The roots; FORWARD becomes their row in the answer, or their number among those that stay.
        for i in range(self.live.size):
            node = self.live.data[i]
            if nodes[node * NODE] != node:
                continue
            if everything or nodes[node * NODE + Y1] < self.row:
                n_components += 1
                n_runs += nodes[node * NODE + RUNS]
        table = np.empty((n_components, 7), np.int32)
        flat = np.empty((n_runs, 3), np.int32)
        components, runs = table, flat
        with nogil:
            n_components = 0
            n_runs = 0
            for i in range(self.live.size):
                node = self.live.data[i]
                if nodes[node * NODE] != node:
                    continue
                if everything or nodes[node * NODE + Y1] < self.row:
                    if nodes[node * NODE + HEAD] >= 0:
                        n_runs = self._write(node, &components[n_components, 0], &runs[0, 0], n_runs)
                        n_components += 1
                else:
                    nodes[node * NODE + FORWARD] = <int32_t>kept
                    self.live.data[kept] = node
                    kept += 1
            # 2. Those that stay move to the front of the table, in the same order.
            for i in range(self.previous_count):
                old = self.previous.data[3 * i + 2]
                self.previous.data[3 * i + 2] = nodes[find(nodes, old) * NODE + FORWARD]
            for i in range(kept):
                old = self.live.data[i]
                if old != i:
                    memcpy(nodes + i * NODE, nodes + old * NODE, NODE * sizeof(int32_t))
                nodes[i * NODE + PARENT] = <int32_t>i
                self.live.data[i] = <int32_t>i
            self.live.size = kept
            self.nodes.size = kept * NODE
            self.garbage += n_runs
            if self.garbage * RUN > self.runs.size // 2:
                self._collect()
        if everything:
            self.previous_count = 0
        return table[:n_components], flat

    cdef int64_t _write(self, int32_t node, int32_t* component, int32_t* runs, int64_t at) noexcept nogil:
        """Write one component and its runs from position ``at``; return the position behind them."""
        cdef int32_t* record = self.nodes.data + node * NODE
        cdef int32_t* run
        cdef int32_t next_run = record[HEAD]
        component[0] = <int32_t>at
        while next_run >= 0:
            run = self.runs.data + <int64_t>next_run * RUN
            runs[3 * at] = run[0]
            runs[3 * at + 1] = run[1]
            runs[3 * at + 2] = run[2]
            next_run = run[3]
            at += 1
        component[1] = <int32_t>at
        component[2] = record[Y0]
        component[3] = record[X0]
        component[4] = record[Y1]
        component[5] = record[X1]
        component[6] = -1 if record[CUT] else record[CONTACTS] - record[RUNS] + 1
        return at

    cdef int _collect(self) except -1 nogil:
        """Move the runs in use to a fresh array."""
        cdef Ints fresh
        cdef int32_t* record
        cdef int32_t* run
        cdef int32_t next_run
        cdef int64_t i
        memset(&fresh, 0, sizeof(Ints))
        reserve_ints(&fresh, max(self.runs.size - self.garbage * RUN, 0))
        for i in range(self.live.size):
            record = self.nodes.data + self.live.data[i] * NODE
            next_run = record[HEAD]
            if next_run < 0:
                continue
            record[HEAD] = <int32_t>(fresh.size / RUN)
            while next_run >= 0:
                run = self.runs.data + <int64_t>next_run * RUN
                next_run = run[3]
                memcpy(fresh.data + fresh.size, run, 3 * sizeof(int32_t))
                fresh.data[fresh.size + 3] = <int32_t>(fresh.size / RUN) + 1
                fresh.size += RUN
            fresh.data[fresh.size - 1] = -1
            record[TAIL] = <int32_t>(fresh.size / RUN) - 1
        free_ints(&self.runs)
        self.runs = fresh
        self.garbage = 0
        return 0

    def borrow(self, int32_t newest_first_row):
        """Show the open components that began in row ``newest_first_row`` or above it.

        They stay open; :meth:`give_back` must follow, with what shall remain of them. Call after
        :meth:`take`.

        Returns
        -------
        components, runs
            As from :meth:`take`.
        """
        cdef int64_t i, n_runs = 0
        cdef int32_t node, n_components = 0
        cdef int32_t[:, ::1] components
        cdef int32_t[:, ::1] runs
        self.borrowed.size = 0
        reserve_ints(&self.borrowed, self.live.size)
        for i in range(self.live.size):
            node = self.live.data[i]
            if self.nodes.data[node * NODE + Y0] <= newest_first_row:
                self.borrowed.data[self.borrowed.size] = node
                self.borrowed.size += 1
                n_runs += self.nodes.data[node * NODE + RUNS]
        table = np.empty((self.borrowed.size, 7), np.int32)
        flat = np.empty((n_runs, 3), np.int32)
        components, runs = table, flat
        n_runs = 0
        for i in range(self.borrowed.size):
            n_runs = self._write(self.borrowed.data[i], &components[i, 0], &runs[0, 0], n_runs)
        return table, flat

    def give_back(self, const int32_t[:, ::1] held):
        """Replace the runs of the borrowed components.

        Parameters
        ----------
        held
            Shape (m, 4): index in the borrowed table, row, first column, end column; in any order.
        """
        cdef int64_t i
        cdef int32_t node, run
        cdef int32_t* record
        cdef int32_t* runs
        reserve_ints(&self.runs, <int64_t>held.shape[0] * RUN)
        runs = self.runs.data
        for i in range(self.borrowed.size):
            record = self.nodes.data + self.borrowed.data[i] * NODE
            self.garbage += record[RUNS]
            record[HEAD] = record[TAIL] = -1
            record[Y0] = self.row
            record[X0] = self.width
            record[X1] = 0
            record[RUNS] = 0
            record[CUT] = 1
        for i in range(held.shape[0]):
            node = self.borrowed.data[held[i, 0]]
            record = self.nodes.data + node * NODE
            run = <int32_t>(self.runs.size / RUN)
            memcpy(runs + self.runs.size, &held[i, 1], 3 * sizeof(int32_t))
            runs[self.runs.size + 3] = -1
            self.runs.size += RUN
            if record[HEAD] < 0:
                record[HEAD] = run
            else:
                runs[record[TAIL] * RUN + 3] = run
            record[TAIL] = run
            record[Y0] = min(record[Y0], held[i, 1])
            record[X0] = min(record[X0], held[i, 2])
            record[X1] = max(record[X1], held[i, 3])
            record[RUNS] += 1
        self.borrowed.size = 0


def paint(int32_t[:, ::1] labels, Py_ssize_t y, const int32_t[:, ::1] runs, const int32_t[::1] numbers):
    """Write the numbers of runs into an image.

    Parameters
    ----------
    labels
        Shape (rows, width); changed in place.
    y
        Row of the image that is ``labels[0]``.
    runs
        Shape (m, 4): row, first column, end column, index into ``numbers``; rows outside ``labels``
        are left out.
    numbers
        Number to write, by index.
    """
    cdef Py_ssize_t i, x, row
    cdef int32_t number
    cdef int32_t* target
    with nogil:
        for i in range(runs.shape[0]):
            row = runs[i, 0] - y
            if 0 <= row < labels.shape[0]:
                number = numbers[runs[i, 3]]
                target = &labels[row, 0]
                for x in range(runs[i, 1], runs[i, 2]):
                    target[x] = number


def label_image(const uint8_t[:, ::1] mask, int threshold=1, int connectivity=8):
    """Label the connected components of a whole image.

    Parameters
    ----------
    mask
        Shape (H, W).
    threshold
        Smallest byte that counts as foreground.
    connectivity
        8 or 4.

    Returns
    -------
    labels : ndarray of int32, shape (H, W)
        0 for background, 1…n in raster order of the first pixel.
    count : int
        n.
    """
    cdef Py_ssize_t height = mask.shape[0], width = mask.shape[1], i, j, x
    cdef int32_t* target
    cdef const int32_t[:, ::1] components
    cdef const int32_t[:, ::1] runs
    cdef int32_t[:, ::1] out
    labels = np.zeros((height, width), np.int32)
    if height == 0 or width == 0:
        return labels, 0
    labeler = RunLabeler(width, threshold, connectivity)
    labeler.push(<uintptr_t>&mask[0, 0] + np.arange(height, dtype=np.uintp) * <size_t>width)
    components, runs = labeler.take(True)
    out = labels
    with nogil:
        for i in range(components.shape[0]):
            for j in range(components[i, 0], components[i, 1]):
                target = &out[runs[j, 0], 0]
                for x in range(runs[j, 1], runs[j, 2]):
                    target[x] = <int32_t>i + 1
    return labels, components.shape[0]
