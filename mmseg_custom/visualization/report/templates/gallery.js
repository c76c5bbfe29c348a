// Filters and sorts the images, and shows them some at a time.
{
  const section = document.getElementById('images');
  if (section) {
    const STEP = 12;
    const grid = section.querySelector('.cards');
    const cards = [...grid.children, ...section.querySelector('template').content.children];
    const form = section.querySelector('form');
    const fields = form.elements;
    const more = section.querySelector('.more');
    const count = section.querySelector('[data-count]');
    let found = [], visible = STEP;

    const has = (card, kind, k) => card.dataset[kind].split(' ').includes(k);
    // An image without a score is shown unless the range is narrowed.
    const inRange = card => {
      const [low, high] = [fields.low, fields.high];
      if (card.dataset.score === '') return low.value === low.min && high.value === high.max;
      return +card.dataset.score >= +low.value && +card.dataset.score <= +high.value;
    };
    const order = (one, other) => {
      if (fields.order.value === 'name') return one.dataset.name.localeCompare(other.dataset.name);
      const [a, b] = [one.dataset.score, other.dataset.score];
      if (a === '' || b === '') return (a === '') - (b === '');
      return (a - b) * fields.order.value;
    };

    function show() {
      grid.replaceChildren(...found.slice(0, visible));
      more.hidden = visible >= found.length;
      more.textContent = `Show ${Math.min(STEP, found.length - visible)} more`;
      count.textContent = `${found.length} of ${cards.length} images`
        + (more.hidden ? '' : `, ${visible} shown`);
    }
    function filter() {
      const name = fields.name.value.trim().toLowerCase();
      const k = fields.class.value;
      fields.kind.disabled = k === '';
      found = cards.filter(card => card.dataset.name.toLowerCase().includes(name)
        && (k === '' || has(card, fields.kind.value, k)) && inRange(card)).sort(order);
      visible = STEP;
      show();
    }

    form.addEventListener('submit', event => event.preventDefault());
    form.addEventListener('input', event => {
      const field = event.target;
      if (field.name === 'low' && +field.value > +fields.high.value) fields.high.value = field.value;
      if (field.name === 'high' && +field.value < +fields.low.value) fields.low.value = field.value;
      for (const name of ['low', 'high', 'opacity']) {
        fields[`${name}-text`].value = fields[name].value;
      }
      if (field.name === 'opacity') grid.style.setProperty('--opacity', field.value / 100);
      else if (field.name === 'size') grid.classList.toggle('large', field.value === 'large');
      else filter();
    });
    document.addEventListener('confused', event => {
      fields.class.value = event.detail;
      fields.kind.value = 'confused';
      filter();
      section.scrollIntoView();
      fields.class.focus({preventScroll: true});
    });
    more.addEventListener('click', () => {
      const next = found[visible];
      visible += STEP;
      show();
      next.tabIndex = -1;
      next.focus({preventScroll: true});  // the button may be gone
    });
    if (section.dataset.folder) {
      const probe = new Image();
      probe.addEventListener('error', () => { section.querySelector('[data-missing]').hidden = false; });
      const beside = cards.find(card => !card.style.getPropertyValue('--layers').includes('data:'));
      probe.src = beside.style.getPropertyValue('--layers').replace(/^\s*url\("?|"?\)\s*$/g, '');
    }
    form.hidden = false;
    filter();
  }
}
