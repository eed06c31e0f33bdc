"""Connected components of a mask that arrives row by row, as runs.

A *run* is a stretch of foreground in one row. Runs of neighbouring rows that touch are joined by
union-find; nothing is kept but the runs of components that may still grow. The kernel knows neither
images nor cells: it gets pointers to rows and hands out finished components.

A component is *finished* when no run of it lies on the newest row. Besides its runs it counts the
contacts between them: ``contacts - runs + 1`` is its number of holes, because the graph of runs of a
planar figure has exactly one independent cycle around each hole.
"""

import numpy as np
from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t

from edges cimport row_edges
from forest cimport (
    Forest, Link, Node, append, begin_node, collect, find, free_forest, keep_first, unite, write_component,
)
from runs cimport Component, HeldRun, Run
from vector cimport Ints, Vector, free_ints, free_vector, reserve, reserve_ints

#: A run: row, first and end column.
RUN_DTYPE = np.dtype([(name, np.int32) for name in ("y", "x0", "x1")])
#: A component: range in the array of runs, bounding box (half-open), holes (-1 where not known), and
#: whether it is marked (1).
COMPONENT_DTYPE = np.dtype(
    [(name, np.int32) for name in ("run_begin", "run_end", "y0", "x0", "y1", "x1", "holes", "marked")]
)
#: A run that was taken out of a component: index of the component, the run, and whether a limit of
#: columns holds it (1) or one of rows only (0).
HELD_DTYPE = np.dtype([(name, np.int32) for name in ("component", "y", "x0", "x1", "by_column")])


cdef struct Newest:
    # A run of the newest row, with its component.
    int32_t x0
    int32_t x1
    int32_t node


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
    first
        Row of the image that is pushed first.
    """

    cdef int32_t width, reach, row, ended
    cdef uint8_t threshold
    cdef Forest forest
    cdef Vector newest
    cdef Ints edges, borrowed  # columns of a row; nodes that are lent

    def __cinit__(self, Py_ssize_t width, int threshold, int connectivity=8, int first=0):
        self.width = width
        self.row = self.ended = first
        self.threshold = threshold
        self.reach = 1 if connectivity == 8 else 0
        reserve_ints(&self.edges, width + 2)
        reserve(&self.newest, width // 2 + 1, sizeof(Newest), b"runs of a row")

    def __dealloc__(self):
        free_forest(&self.forest)
        free_vector(&self.newest)
        free_ints(&self.edges)
        free_ints(&self.borrowed)

    @property
    def rows(self):
        """Row that comes next: the number of rows seen, where the first one was 0."""
        return self.row

    @property
    def oldest(self):
        """First row of the oldest component that can still grow; the newest row + 1 without any."""
        cdef const Node* nodes = <const Node*>self.forest.nodes.data
        cdef int64_t i
        cdef int32_t y = self.row
        for i in range(self.forest.live.size):
            y = min(y, nodes[self.forest.live.data[i]].y0)
        return y

    def mark(self):
        """Mark the components that have a run in the newest row; what they grow to be stays marked."""
        cdef const Newest* newest = <const Newest*>self.newest.data
        cdef Node* nodes = <Node*>self.forest.nodes.data
        cdef int64_t i
        for i in range(self.newest.size):
            nodes[find(nodes, newest[i].node)].marked = 1

    def outlook(self):
        """Say what the components that can still grow may need.

        Returns
        -------
        first : int
            First row that one without a mark had, whatever was taken out of it; else the next row.
        oldest : int
            First row of what is left of those without a mark; else the next row.
        marked : int
            How many with a mark there are.
        ended : int
            Row behind the last one of those with a mark that were handed out so far.
        """
        cdef const Node* nodes = <const Node*>self.forest.nodes.data
        cdef const Node* node
        cdef int32_t first = self.row, oldest = self.row, marked = 0
        cdef int64_t i
        for i in range(self.forest.live.size):
            node = nodes + self.forest.live.data[i]
            if node.parent != self.forest.live.data[i]:
                continue
            if node.marked:
                marked += 1
            else:
                first, oldest = min(first, node.first), min(oldest, node.y0)
        return first, oldest, marked, self.ended

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
        cdef Newest* before = <Newest*>self.newest.data
        cdef int32_t n = row_edges(row, self.width, self.threshold, edges) >> 1
        cdef int32_t n_before = <int32_t>self.newest.size
        cdef int32_t reach = self.reach, y = self.row, i, j = 0, k, x0, x1, node, other, link
        cdef Link* links
        cdef Node* nodes
        reserve(&self.forest.links, n, sizeof(Link), b"runs")
        reserve(&self.forest.nodes, n, sizeof(Node), b"components")
        reserve_ints(&self.forest.live, n)
        links = <Link*>self.forest.links.data
        nodes = <Node*>self.forest.nodes.data
        link = <int32_t>self.forest.links.size
        for i in range(n):
            x0 = edges[2 * i]
            x1 = edges[2 * i + 1]
            links[link].y = y
            links[link].x0 = x0
            links[link].x1 = x1
            links[link].next = -1
            while j < n_before and before[j].x1 + reach <= x0:
                j += 1
            node = -1
            k = j
            while k < n_before and before[k].x0 < x1 + reach:
                other = find(nodes, before[k].node)
                if node < 0:
                    node = other
                elif node != other:
                    node = unite(nodes, links, node, other)
                nodes[node].contacts += 1
                k += 1
            # the last of them may touch our next run too, so j stays on it
            if k > j:
                j = k - 1
            if node < 0:
                node = <int32_t>self.forest.nodes.size
                self.forest.nodes.size += 1
                self.forest.live.data[self.forest.live.size] = node
                self.forest.live.size += 1
                begin_node(nodes + node, node, y, x0, x1)
            append(nodes + node, links, link)
            nodes[node].y1 = y + 1
            edges[2 * i] = node  # its columns are in `links` by now
            link += 1
        for i in range(n):
            link = <int32_t>self.forest.links.size + i
            before[i].x0 = links[link].x0
            before[i].x1 = links[link].x1
            before[i].node = edges[2 * i]
        self.forest.links.size += n
        self.newest.size = n
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
        components : ndarray of :data:`COMPONENT_DTYPE`, shape (n,)
            In raster order of the first pixel.
        runs : ndarray of :data:`RUN_DTYPE`, shape (m,)
            The runs of each, component by component.
        """
        cdef Node* nodes = <Node*>self.forest.nodes.data
        cdef const Link* links = <const Link*>self.forest.links.data
        cdef Newest* newest = <Newest*>self.newest.data
        cdef Node* node
        cdef int64_t i, n_runs = 0
        cdef int32_t end = self.row + 1 if everything else self.row, n_components = 0, kept = 0
        cdef Component[::1] components
        cdef Run[::1] runs
        for i in range(self.forest.live.size):
            node = nodes + self.forest.live.data[i]
            if node.parent == self.forest.live.data[i] and node.y1 < end:
                n_components += 1
                n_runs += node.runs
                if node.marked:
                    self.ended = max(self.ended, node.y1)
        table = np.empty(n_components, COMPONENT_DTYPE)
        flat = np.empty(n_runs, RUN_DTYPE)
        components, runs = table, flat
        with nogil:
            n_components = 0
            n_runs = 0
            for i in range(self.forest.live.size):
                node = nodes + self.forest.live.data[i]
                if node.parent != self.forest.live.data[i]:
                    continue
                if node.y1 < end:
                    if node.head >= 0:
                        n_runs = write_component(node, links, &components[n_components], &runs[0], n_runs)
                        n_components += 1
                else:
                    node.forward = kept
                    self.forest.live.data[kept] = self.forest.live.data[i]
                    kept += 1
            for i in range(self.newest.size):
                newest[i].node = nodes[find(nodes, newest[i].node)].forward
            keep_first(&self.forest, kept)
            self.forest.garbage += n_runs
            if self.forest.garbage > self.forest.links.size // 2:
                collect(&self.forest)
        if everything:
            self.newest.size = 0
        return table[:n_components], flat

    def borrow(self, int32_t newest_first_row):
        """Show the open components that began in row ``newest_first_row`` or above it.

        They stay open; :meth:`give_back` must follow, with what shall remain of them. Call after
        :meth:`take`.

        Returns
        -------
        components, runs
            As from :meth:`take`.
        """
        cdef const Node* nodes = <const Node*>self.forest.nodes.data
        cdef const Link* links = <const Link*>self.forest.links.data
        cdef int64_t i, n_runs = 0
        cdef int32_t node
        cdef Component[::1] components
        cdef Run[::1] runs
        self.borrowed.size = 0
        reserve_ints(&self.borrowed, self.forest.live.size)
        for i in range(self.forest.live.size):
            node = self.forest.live.data[i]
            if nodes[node].y0 <= newest_first_row:
                self.borrowed.data[self.borrowed.size] = node
                self.borrowed.size += 1
                n_runs += nodes[node].runs
        table = np.empty(self.borrowed.size, COMPONENT_DTYPE)
        flat = np.empty(n_runs, RUN_DTYPE)
        components, runs = table, flat
        n_runs = 0
        for i in range(self.borrowed.size):
            n_runs = write_component(nodes + self.borrowed.data[i], links, &components[i], &runs[0], n_runs)
        return table, flat

    def give_back(self, const HeldRun[::1] held):
        """Replace the runs of the borrowed components.

        Parameters
        ----------
        held
            :data:`HELD_DTYPE`, in any order; components are indices in the borrowed table.
        """
        cdef int64_t i
        cdef Node* nodes = <Node*>self.forest.nodes.data
        cdef Node* node
        cdef Link* link
        reserve(&self.forest.links, held.shape[0], sizeof(Link), b"runs")
        for i in range(self.borrowed.size):
            node = nodes + self.borrowed.data[i]
            self.forest.garbage += node.runs
            node.head = node.tail = -1
            node.y0 = self.row
            node.x0 = self.width
            node.x1 = 0
            node.runs = 0
            node.cut = 1
        for i in range(held.shape[0]):
            link = <Link*>self.forest.links.data + self.forest.links.size
            link.y = held[i].y
            link.x0 = held[i].x0
            link.x1 = held[i].x1
            link.next = -1
            append(
                nodes + self.borrowed.data[held[i].component], <Link*>self.forest.links.data,
                <int32_t>self.forest.links.size,
            )
            self.forest.links.size += 1
        self.borrowed.size = 0
