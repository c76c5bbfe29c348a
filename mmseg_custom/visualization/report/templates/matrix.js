// Moves through the confusion matrix by the arrow keys, and says what a cell holds.
{
  const table = document.querySelector('#matrix table');
  if (table) {
    const rows = [...table.tBodies[0].rows].map(row => [...row.cells].slice(1));
    const text = document.querySelector('[data-cell]');
    let current = rows[0][0];
    current.tabIndex = 0;
    const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
      Home: [0, -Infinity], End: [0, Infinity]};
    const limit = (value, end) => Math.min(Math.max(value, 0), end - 1);
    table.addEventListener('keydown', event => {
      if (event.key === 'Enter' && event.target.tagName === 'TD') choose(event.target);
      const move = moves[event.key];
      const row = rows.findIndex(cells => cells.includes(document.activeElement));
      if (!move || row < 0) return;
      event.preventDefault();
      const column = rows[row].indexOf(document.activeElement);
      const to = rows[limit(row + move[0], rows.length)];
      to[limit(column + move[1], to.length)].focus();
    });
    table.addEventListener('focusin', event => {
      if (event.target.tagName !== 'TD') return;
      current.tabIndex = -1;
      current = event.target;
      current.tabIndex = 0;
      text.textContent = current.title;
    });
    // The gallery shows the images in which the class of the row is confused.
    const choose = cell => document.dispatchEvent(
      new CustomEvent('confused', {detail: cell.parentElement.dataset.class}));
    table.addEventListener('click', event => {
      if (event.target.tagName === 'TD') choose(event.target);
    });
    table.addEventListener('pointerover', event => {
      if (event.target.tagName === 'TD') text.textContent = event.target.title;
    });
  }
}
